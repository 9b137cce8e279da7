"""The frame: help, version, exit codes, errors, pipes, and how light it starts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import cnnlab
from cnnlab.cli import commands, main

ROOT = Path(__file__).resolve().parents[2]


def in_a_process(code: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, env=environment)


@pytest.mark.parametrize("args", [[], ["--help"]])
def test_help_lists_every_command(args, capsys):
    assert main(args) == 0
    text = capsys.readouterr().out
    assert all(f"• {name} " in text for name in commands.COMMANDS)
    assert "cnnlab --version" in text


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_every_command_explains_itself_and_each_of_its_options(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: cnnlab {name} ")
    assert "Args:" not in text and "Raises:" not in text


def test_help_starts_without_jax_and_listings_without_heavy_packages():
    seen = in_a_process(
        "import contextlib, io, json, sys\n"
        "from cnnlab.cli import main\n"
        "def brought(*args):\n"
        "    with contextlib.redirect_stdout(io.StringIO()): assert main(args) == 0\n"
        "    return sorted({name.split('.')[0] for name in sys.modules})\n"
        "print(json.dumps([brought('--version'), brought('--help'), [*brought('models'), *brought('recipes')]]))"
    )
    version, help_, listings = map(set, json.loads(seen.stdout))
    assert version.isdisjoint({"tyro", "numpy", "jax"})
    assert help_.isdisjoint({"numpy", "jax", "flax", "rich", "matplotlib"}) and "tyro" in help_
    assert listings.isdisjoint({"tensorflow_datasets", "tensorflow", "matplotlib", "sklearn"}) and "jax" in listings


def test_python_m_cnnlab_is_the_command_and_passes_its_exit_code_on():
    done = subprocess.run([sys.executable, "-m", "cnnlab", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"cnnlab {cnnlab.__version__}\n", "")
    done = subprocess.run([sys.executable, "-m", "cnnlab", "trian"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "trian" in done.stderr and done.stdout == ""


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--bogus"], "--bogus"),
        (["train", "--modle", "lenet"], "--model"),
        (["train", "--seed", "1", "--seeds", "2"], "not allowed together"),
        (["evaluate"], "RUN"),
        (["train", "--seed", "one"], "--seed"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_what_is_wrong(args, text, capsys):
    assert main(args) == 2
    assert text in capsys.readouterr().err


@pytest.fixture
def failing(monkeypatch):
    """Make `cnnlab recipes` raise what it is told to."""

    def fail_with(error: BaseException) -> None:
        def command():
            raise error

        monkeypatch.setitem(commands.COMMANDS, "recipes", lambda: command)

    return fail_with


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("Expected a, got b;\n   do c."), 2, "cnnlab: Expected a, got b; do c."),
        (ValueError("bad shape"), 2, "cnnlab: ValueError: bad shape (CNNLAB_TRACEBACK=1 shows where)"),
        (cnnlab.DatasetError("Expected d."), 2, "cnnlab: Expected d."),
        (FileNotFoundError(2, "No such file", "x.png"), 2, "cnnlab: No such file: x.png"),
        (OSError(28, "No space left on device"), 1, "cnnlab: No space left on device"),
        (cnnlab.report.ReportError("Expected r."), 1, "cnnlab: Expected r."),
        (cnnlab.training.CheckpointError("Expected k."), 1, "cnnlab: Expected k."),
        (cnnlab.training.RunFolderError("Expected f."), 2, "cnnlab: Expected f."),
        (KeyboardInterrupt(), 130, "cnnlab: interrupted"),
    ],
)
def test_an_expected_error_is_one_line_and_an_exit_code(failing, capsys, error, code, line):
    failing(error)
    assert main(["recipes"]) == code
    assert capsys.readouterr() == ("", line + "\n")


def test_a_missing_package_is_named_with_the_command_that_helps(failing, capsys):
    failing(ModuleNotFoundError("No module named 'matplotlib'", name="matplotlib"))
    assert main(["recipes"]) == 1
    assert capsys.readouterr().err == (
        f"cnnlab: Expected the package 'matplotlib', got none; do ask {sys.executable} -m cnnlab doctor.\n"
    )


@pytest.mark.parametrize("error", [TypeError("a bug"), ModuleNotFoundError("No module", name="cnnlab.nothing")])
def test_a_bug_is_not_hidden(failing, error):
    failing(error)
    with pytest.raises(type(error)):
        main(["recipes"])


def test_a_traceback_is_shown_when_asked_for(failing, capsys, monkeypatch):
    monkeypatch.setenv("CNNLAB_TRACEBACK", "1")
    failing(ValueError("Expected a."))
    assert main(["recipes"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback") and lines[-1] == "cnnlab: Expected a."


def test_a_reader_that_has_left_is_no_noise():
    code = "import sys; from cnnlab.cli import main; sys.exit(main(['--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    with process:
        assert process.stderr.read() == b""
    assert process.returncode == 141
