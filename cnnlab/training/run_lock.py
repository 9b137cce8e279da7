"""One process trains in a run folder; a second one is told so."""

from __future__ import annotations

import os
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None

_NAME = ".lock"


class RunFolderError(Exception):
    """A run folder that cannot be made, found, read or used now; the text says what to do, in one line."""


class RunLock:
    """Keeps other processes from training in a folder while it is entered; entering it again inside is allowed.

    A lock on the file `.lock` (`flock`), which the system releases when the process dies, whatever the reason. The file
    goes when the lock is released; one that a killed process left means nothing.

    Args:
        folder: the run folder; it must exist by then.

    Raises:
        RunFolderError: on entering, when another process is in, or the file cannot be made.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._descriptor: int | None = None
        self._depth = 0

    def __enter__(self) -> RunLock:
        if self._depth == 0:
            self._descriptor = _lock(self._folder)
        self._depth += 1
        return self

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0 and self._descriptor is not None:
            (self._folder / _NAME).unlink(missing_ok=True)  # while it is held, so that it is ours
            os.close(self._descriptor)
            self._descriptor = None


def _lock(folder: Path) -> int | None:
    """Return the descriptor that holds the lock; None where the system has no such locks."""
    if fcntl is None:
        return None
    path = folder / _NAME
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise RunFolderError(
                f"Expected to write {path}, got '{error}'; do check the disk's room and rights."
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise RunFolderError(
                f"Expected no other process training in {folder}, got one; do wait for it to end."
            ) from None
        except OSError:  # a file system without locks is no reason not to train
            return descriptor
        if _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)  # whoever held it has removed it meanwhile: the lock is on a file that is gone


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
