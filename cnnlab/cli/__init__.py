"""The command line: `cnnlab train`, `resume`, `evaluate`, `predict`, `report`, `models` ...; thin over the library.

Exit codes: 0 done; 2 what was typed cannot be (a name, a value, a folder); 1 it was begun and failed; 130
interrupted, and `cnnlab resume` goes on where a run had begun. Each error is one line on standard error;
`CNNLAB_TRACEBACK=1` adds where it came from.
"""

import os
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

_DESCRIPTION = """Train, study and compare convolutional networks.

cnnlab COMMAND --help tells more; cnnlab --version tells the version."""
_TYPED, _FAILED, _INTERRUPTED, _BROKEN_PIPE = 2, 1, 130, 141


def main(args: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        args: what was typed after `cnnlab`; by default that of this process.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError):  # not a text file, as in some tests and notebooks
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    with _noted_ctrl_c() as pressed:
        return _guarded([*(sys.argv[1:] if args is None else args)], pressed)


@contextmanager
def _noted_ctrl_c() -> Iterator[list[int]]:
    """Let Ctrl-C interrupt as ever, and note that it did: a half-imported package may turn it into any error."""
    pressed: list[int] = []

    def interrupt(number: int, _: object) -> None:
        pressed.append(number)
        raise KeyboardInterrupt

    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ours = usual and threading.current_thread() is threading.main_thread()
    if ours:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield pressed
    finally:
        if ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _guarded(args: list[str], pressed: list[int]) -> int:
    """Run one command and turn whatever it raises into a line and an exit code."""
    try:
        try:
            return _run(args)
        finally:
            sys.stdout.flush()  # a reader that has left is noticed here, not at exit
    except SystemExit as stop:  # tyro, after --help and wrong usage
        return stop.code if isinstance(stop.code, int) else _FAILED * bool(stop.code)
    except KeyboardInterrupt as stop:
        print(f"cnnlab: {str(stop) or 'interrupted'}", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        with suppress(OSError, ValueError):  # what is still buffered has no reader: let it go nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _BROKEN_PIPE
    except Exception as error:
        if pressed:
            print("cnnlab: interrupted", file=sys.stderr)
            return _INTERRUPTED
        code = _exit_code(error)
        if code is None:
            raise
        if os.environ.get("CNNLAB_TRACEBACK") == "1":
            traceback.print_exception(error)
        print(f"cnnlab: {_explained(error)}", file=sys.stderr)
        return code


def _run(args: list[str]) -> int:
    """Find the command and run it, outside tyro, which would take our ValueErrors for its own."""
    if args == ["--version"]:
        from cnnlab import __version__

        print(f"cnnlab {__version__}")
        return 0
    import tyro

    from .commands import COMMANDS

    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS,
        prog="cnnlab",
        description=_DESCRIPTION,
        args=args or ["--help"],
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),
    )
    return command()


def _exit_code(error: Exception) -> int | None:
    """The exit code of an error that people can mend; None for one of ours to mend."""
    if isinstance(error, ModuleNotFoundError):
        return None if (error.name or "cnnlab").startswith("cnnlab") else _FAILED
    from cnnlab.data import DatasetError
    from cnnlab.report import ReportError
    from cnnlab.training import CheckpointError, RunFolderError, TrainingDiverged

    if isinstance(error, TrainingDiverged | CheckpointError | ReportError):
        return _FAILED
    if isinstance(error, ValueError | DatasetError | RunFolderError | FileNotFoundError):
        return _TYPED
    return _FAILED if isinstance(error, OSError) else None


def _explained(error: Exception) -> str:
    """One line."""
    if isinstance(error, ModuleNotFoundError):
        return f"Expected the package {error.name!r}, got none; do ask {shlex.quote(sys.executable)} -m cnnlab doctor."
    if isinstance(error, OSError) and error.strerror:
        return error.strerror if error.filename is None else f"{error.strerror}: {error.filename}"
    text = " ".join(str(error).split())
    if isinstance(error, ValueError) and "Expected" not in text:  # of a library: the place says more than the text
        return f"{type(error).__name__}: {text} (CNNLAB_TRACEBACK=1 shows where)"
    return text
