"""A run is a folder: what went in, what came out, and where to go on.

    RUN/
      recipe.json  environment.json  result.json      written whole or not at all
      metrics.jsonl                                   one line per epoch, written as the epoch ends
      checkpoints/best/  checkpoints/last/            see `cnnlab.training.checkpoint`
      .lock                                           there while a process trains, see `cnnlab.training.run_lock`
      figures/  report.html                           made from the above

The JSON is strict, so that any tool reads it: NaN and infinities are null there. What a run needs to go on,
NaN included, is in the meta of its checkpoints.
"""

import json
import math
import os
import re
import shutil
import uuid
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

from .checkpoint import CheckpointStore
from .run_lock import RunFolderError as RunFolderError
from .run_lock import RunLock

_MAX_BYTES = 64 * 2**20
_RECIPE, _METRICS = "recipe.json", "metrics.jsonl"
_FILES = (_RECIPE, "environment.json", "result.json", "summary.json", _METRICS, "report.html")
_FOLDERS = ("checkpoints", "figures")
_SEED = re.compile(r"seed-\d+", re.ASCII)


class RunFolder:
    """The files of one run. `create` starts one and `open` finds one; the constructor touches nothing.

    Args:
        path: the folder; `checkpoints` and `figures` are paths in it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser().absolute()
        self.checkpoints = self.path / "checkpoints"
        self.figures = self.path / "figures"

    @classmethod
    def create(cls, path: str | os.PathLike[str], *, overwrite: bool = False) -> "RunFolder":
        """Make an empty run folder, with `checkpoints` and `figures` in it.

        Args:
            path: where; files of other kinds that lie there are left alone.
            overwrite: whether to remove the run, or the runs of several seeds, that are there.

        Raises:
            RunFolderError: a run is there and `overwrite` is not set, a process is training it, or the folder
                cannot be made.
        """
        folder = cls(path)
        try:
            there = folder._contents()
            if there and not overwrite:
                raise RunFolderError(
                    f"Expected no run in {folder.path}, got one with {_listed(there)}; "
                    "do choose another --out, resume it, or overwrite it."
                )
            if there and not any(path.name == _RECIPE for path in there):
                raise RunFolderError(
                    f"Expected a run to overwrite in {folder.path}, got {_listed(there)} without {_RECIPE}; "
                    "do choose another --out, or remove them yourself."
                )
            with ExitStack() as held:
                for path in sorted({path.parent for path in there}):
                    held.enter_context(cls(path).lock)
                for old in reversed(there):  # recipe.json last: what was interrupted can be done again
                    _remove(old)
            for new in (folder.path, folder.checkpoints, folder.figures):
                new.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunFolderError(
                f"Expected to make the run folder {folder.path}, got '{error}'; do choose another --out."
            ) from error
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """Find the run in a folder.

        Raises:
            RunFolderError: the folder is missing or holds no recipe.json.
        """
        folder = cls(path)
        if not (folder.path / _RECIPE).is_file():
            got = f"no {_RECIPE} there" if folder.path.is_dir() else "no such folder"
            raise RunFolderError(f"Expected a run in {folder.path}, got {got}; do give the --out of a run.")
        return folder

    @cached_property
    def best(self) -> CheckpointStore:
        """The best checkpoint so far, in checkpoints/best."""
        return CheckpointStore(self.checkpoints / "best")

    @cached_property
    def last(self) -> CheckpointStore:
        """The last checkpoint, in checkpoints/last: from here a run goes on."""
        return CheckpointStore(self.checkpoints / "last")

    @cached_property
    def lock(self) -> RunLock:
        """A context in which no other process trains in this folder; RunFolderError when one does."""
        return RunLock(self.path)

    def write_json(self, name: str, value: Any) -> None:
        """Write a file whole or not at all.

        Args:
            name: file name, such as `result.json`.
            value: dicts with text keys, lists, tuples, text, numbers, None, NumPy and jax arrays (as lists).
                NaN and infinities become null.

        Raises:
            RunFolderError: the value is of another kind, or the file cannot be written.
        """
        text = json.dumps(strict(value, name), indent=2, ensure_ascii=False, allow_nan=False)
        self._replace(name, f"{text}\n".encode())

    def read_json(self, name: str) -> Any:
        """Read what `write_json` wrote.

        Raises:
            RunFolderError: the file is missing, damaged or larger than 64 MiB.
        """
        data = self._read(name)
        if data is None:
            raise RunFolderError(
                f"Expected the file {self.path / name}, got none; do give the --out of a run, or train again."
            )
        try:
            return json.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise RunFolderError(
                f"Expected JSON in {self.path / name}, got '{_one_line(error)}'; restore it or train again."
            ) from error

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one line to metrics.jsonl, and flush it. A torn line that a kill left is removed first.

        Args:
            record: values as in `write_json`; `epoch` counts from 1.

        Raises:
            RunFolderError: a value cannot be written, or the file cannot.
        """
        line = json.dumps(strict(record, _METRICS), allow_nan=False).encode()
        self._expect_epoch(record, "the new record")
        last = (self._read(_METRICS) or b"").rpartition(b"\n")[2]
        try:
            with open(self.path / _METRICS, "ab") as file:
                if _is_torn(last):
                    file.truncate(file.tell() - len(last))
                    last = b""
                file.write(b"\n" * bool(last) + line + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritten(self.path / _METRICS, error) from error

    def read_metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl in the order of writing; [] where there is none.

        A last line that was torn by a kill is left out.

        Raises:
            RunFolderError: another line is damaged; the text names it.
        """
        records = []
        lines = (self._read(_METRICS) or b"").split(b"\n")
        if _is_torn(lines[-1]) or not lines[-1]:
            lines.pop()
        for number, line in enumerate(lines, start=1):
            where = f"{self.path / _METRICS}, line {number}"
            try:
                record = json.loads(line.decode())
            except (ValueError, RecursionError) as error:
                raise RunFolderError(
                    f"Expected JSON in {where}, got '{_one_line(error)}'; do repair or delete that line."
                ) from error
            self._expect_epoch(record, where)
            records.append(record)
        return records

    def truncate_metrics(self, epochs: int) -> None:
        """Keep only the records whose epoch is at most `epochs`; a resumed run writes the others again.

        Raises:
            RunFolderError: as `read_metrics`, or the file cannot be written.
        """
        kept = [json.dumps(record) for record in self.read_metrics() if record["epoch"] <= epochs]
        if (self.path / _METRICS).exists():
            self._replace(_METRICS, "".join(f"{line}\n" for line in kept).encode())

    def _contents(self) -> list[Path]:
        """What is there of a run or of several seeds' runs; folders only when something is in them."""
        there = [self.path / name for name in _FILES if (self.path / name).exists()]
        there += [self.path / name for name in _FOLDERS if any((self.path / name).rglob("*"))]
        for seed in sorted(self.path.glob("seed-*")):
            if _SEED.fullmatch(seed.name):
                there += RunFolder(seed)._contents()
        return there

    def _expect_epoch(self, record: Any, where: str) -> None:
        epoch = record.get("epoch") if isinstance(record, dict) else None
        if type(epoch) is not int:
            raise RunFolderError(f"Expected an object with a whole number 'epoch' in {where}, got {epoch!r}.")

    def _read(self, name: str) -> bytes | None:
        path = self.path / name
        try:
            if (size := path.stat().st_size) > _MAX_BYTES:
                raise RunFolderError(f"Expected {path} below {_MAX_BYTES:,} bytes, got {size:,}; this is no run file.")
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise RunFolderError(f"Expected to read {path}, got '{error}'; do check its rights.") from error

    def _replace(self, name: str, data: bytes) -> None:
        if Path(name).name != name or name in ("", ".."):
            raise RunFolderError(f"Expected the name of a file in {self.path}, got {name!r}; do give no folders.")
        replace_file(self.path / name, data)


def replace_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; RunFolderError when that cannot be."""
    draft = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    try:
        try:
            with open(draft, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise _unwritten(path, error) from error


def strict(value: Any, where: str) -> Any:
    """Plain values that every JSON reader takes: arrays are lists, what is not finite is None."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [strict(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: strict(item, f"{where}[{key!r}]") for key, item in value.items()}
    if hasattr(value, "dtype"):  # NumPy and jax, scalars and arrays
        return strict(value.tolist(), where)  # pyright: ignore[reportAttributeAccessIssue]
    got = "a dict with keys that are no text" if type(value) is dict else type(value).__name__
    raise RunFolderError(f"Expected a value that JSON can hold at {where}, got {got}; do convert it first.")


def _unwritten(path: Path, error: OSError) -> RunFolderError:
    return RunFolderError(f"Expected to write {path}, got '{error}'; do check the disk's room and rights.")


def _is_torn(last: bytes) -> bool:
    """Whether what follows the last line feed is the beginning of a record only."""
    try:
        return bool(last) and not isinstance(json.loads(last.decode()), dict)
    except (ValueError, RecursionError):
        return True


def _listed(paths: list[Path]) -> str:
    names = [path.name for path in paths]
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
