"""The cache: what was decoded once is later mapped into memory, without decoding and without its libraries.

    $CNNLAB_CACHE                            or $XDG_CACHE_HOME/cnnlab, or ~/.cache/cnnlab
      downloads/                             what was fetched from the network
      locks/                                 one per group; held while something is prepared
      datasets/<group>/                      a data set name, such as cifar10
        <key>/                               one prepared set; the key is a hash of its content and class
        names
          images_train.npy  labels_train.npy  images_test.npy  labels_test.npy  meta.json
        sources/<signature>.json             which entry a source (path, size, time of change) was read into

An entry appears by one `os.replace` of a finished folder, so it is there whole or not at all. Preparing holds
a lock that the system releases even when the process is killed; what a killed process left behind is removed
by the next.
"""

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from cnnlab.data.dataset import Dataset, Split, fingerprint_of
from cnnlab.data.errors import DatasetError

_FORMAT = 1  # raise it when the layout of an entry changes: older entries are then prepared anew
_DRAFT = ".draft-"


def cache_root() -> Path:
    """`$CNNLAB_CACHE`, else `$XDG_CACHE_HOME/cnnlab`, else `~/.cache/cnnlab`."""
    if own := os.environ.get("CNNLAB_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnnlab"


def group_folder(group: str) -> Path:
    """Where the entries of the data set `group` are."""
    return cache_root() / "datasets" / group


def signature_of(kind: str, paths: Iterable[Path], *options: Any) -> str:
    """Names a source by where it is, how large, and when it changed: cheap, nothing is read.

    Args:
        kind: what sort of source it is.
        paths: the files that make it up.
        options: whatever else decides the arrays, such as a size.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256(repr((_FORMAT, kind, options)).encode())
    for path in paths:
        status = path.stat()
        digest.update(f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def find_by_source(group: str, signature: str, name: str) -> Dataset | None:
    """The entry that this very source was read into, or None."""
    folder = group_folder(group)
    note = _read_json(folder / "sources" / f"{signature}.json")
    if note is None:
        return None
    return _load_entry(folder / str(note.get("entry")), name, str(note.get("source")))


def find_newest(group: str, name: str) -> Dataset | None:
    """The entry of the group that was prepared last, or None."""
    for _, entry in sorted(_entries(group), reverse=True):
        if (dataset := _load_entry(entry, name)) is not None:
            return dataset
    return None


def newest_entry(group: str) -> Path | None:
    """Folder of the entry that `find_newest` would load first, or None."""
    entries = _entries(group)
    return max(entries)[1] if entries else None


def prepare(
    group: str,
    signature: str,
    *,
    name: str,
    source: str,
    write: Callable[[Path], tuple[str, ...]],
    extend: Callable[[Path], None] | None = None,
) -> Dataset:
    """Load the entry of a source, or make it.

    Args:
        group: the data set's folder in the cache.
        signature: from `signature_of`.
        name: the data set's name in the record that is returned.
        source: one line about where the data is from.
        write: called with an empty folder; writes the four arrays there (see `write_split`), returns the
            class names.
        extend: called with the folder when its content is new to the cache; may add to it.

    Raises:
        DatasetError: from `write` or `extend`, or when the cache cannot be written. Nothing is left behind.
    """
    folder = group_folder(group)
    with locked(folder):
        if (dataset := find_by_source(group, signature, name)) is not None:
            return dataset  # another process was faster
        try:
            for leftover in folder.glob(f"{_DRAFT}*"):  # ours is the lock, so nobody is writing there
                shutil.rmtree(leftover, ignore_errors=True)
            draft = folder / f"{_DRAFT}{uuid.uuid4().hex}"
            draft.mkdir(parents=True)
            try:
                entry = _publish(draft, source, write(draft), extend)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
            note = {"entry": entry.name, "source": source}
            _write_json(folder / "sources" / f"{signature}.json", note)
        except OSError as error:
            raise DatasetError(
                f"Expected to write to the cache {folder}, got '{error}'; "
                "do make room there, or set CNNLAB_CACHE to a folder you can write to."
            ) from error
    dataset = _load_entry(entry, name, source)
    if dataset is None:
        raise DatasetError(f"Expected a readable entry in {entry}, got a damaged one; do check the disk and try again.")
    return dataset


def write_split(folder: Path, which: str, split: Split) -> None:
    """Write `images_<which>.npy` and `labels_<which>.npy`."""
    np.save(folder / f"images_{which}.npy", split.images, allow_pickle=False)
    np.save(folder / f"labels_{which}.npy", split.labels, allow_pickle=False)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that stands for `path` among all processes that share the cache.

    Where the system has no `flock` (Windows) nothing is locked: entries are still whole, but two processes
    may each do the work.
    """
    folder = cache_root() / "locks"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / f"{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]}.lock", "a")
    except OSError as error:
        raise DatasetError(
            f"Expected a writable cache folder, got '{error}'; do set CNNLAB_CACHE to another."
        ) from error
    with file:
        try:
            import fcntl
        except ImportError:
            pass
        else:
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, or the process ends
        yield


def _publish(draft: Path, source: str, classes: tuple[str, ...], extend: Callable[[Path], None] | None) -> Path:
    """Turn a finished draft into an entry, unless the cache has an entry with the same content."""
    train, test = _map_split(draft, "train"), _map_split(draft, "test")
    fingerprint = fingerprint_of(train, test)
    Dataset("draft", train, test, classes, source, fingerprint)  # its checks, before anything is published
    key = hashlib.sha256(json.dumps([fingerprint, classes]).encode()).hexdigest()[:16]
    entry = draft.parent / key
    if _load_entry(entry, "draft") is not None:
        return entry
    if extend is not None:
        extend(draft)
    meta = {
        "format": _FORMAT,
        "classes": classes,
        "source": source,
        "fingerprint": fingerprint,
        "prepared": time.time(),
    }
    _write_json(draft / "meta.json", meta)
    if entry.exists():  # damaged
        shutil.rmtree(entry)
    os.replace(draft, entry)
    return entry


def _load_entry(entry: Path, name: str, source: str | None = None) -> Dataset | None:
    """Map an entry into memory; None when it is missing or damaged."""
    meta = _read_json(entry / "meta.json")
    if meta is None or meta.get("format") != _FORMAT:
        return None
    try:
        train, test = _map_split(entry, "train"), _map_split(entry, "test")
        return Dataset(name, train, test, tuple(meta["classes"]), source or meta["source"], meta["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, DatasetError):
        return None


def _map_split(folder: Path, which: str) -> Split:
    images = np.load(folder / f"images_{which}.npy", mmap_mode="r", allow_pickle=False)
    return Split(images, np.load(folder / f"labels_{which}.npy", allow_pickle=False))


def _entries(group: str) -> list[tuple[float, Path]]:
    """`(time prepared, folder)` of every entry of a group."""
    metas = ((path.parent, _read_json(path)) for path in group_folder(group).glob("[!.]*/meta.json"))
    return [(meta["prepared"], entry) for entry, meta in metas if meta and meta.get("format") == _FORMAT]


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{_DRAFT}{uuid.uuid4().hex}")
    draft.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(draft, path)
