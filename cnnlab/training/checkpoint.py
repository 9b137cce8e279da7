"""Checkpoints: one kept per folder, whole or not there at all, and checked when it is read.

A save is a one-off `ocp.save` into a draft folder on a thread of ours, which one `os.replace` then publishes
under the next number of our own count. Orbax's own Checkpointer is not used because it orders by step: it
refuses or deletes when a run goes back to an older one, and takes an empty folder named 7 for the newest.

    FOLDER/                   such as RUN/checkpoints/best
      save-00000007/          the newest; the one before is removed when this one is complete
        meta.json             step, meta, and shape, dtype and sha256 of every leaf; sha256 of all that
        arrays/               Orbax: a flat dict of leaf name -> array; a typed PRNG key is there as its data
      .draft-.../             being written, or left behind by a killed process; the next save removes it

This is the only file of cnnlab that knows Orbax, which is imported at the first save or load (half a second).
"""

import hashlib
import json
import os
import re
import shutil
import threading
import uuid
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .checkpoint_leaves import CheckpointError as CheckpointError
from .checkpoint_leaves import expect_same, is_key, named_leaves, plain, sha256_of, spec_of, to_host

_T = TypeVar("_T")
_ONE_AT_A_TIME = threading.Lock()  # two saves of Orbax 0.12 at once delete each other's temporary folders
_FORMAT = 1  # raise it when the layout changes
_SAVE = re.compile(r"save-(\d{8,})", re.ASCII)
_DRAFT = ".draft-"
_MAX_META_BYTES = 256 * 2**20  # a history of a million epochs; more is no meta of ours


class _Damaged(Exception):
    """One saved folder that is not what was written."""


class CheckpointStore:
    """One kept checkpoint under `folder` (e.g. RUN/checkpoints/best): saved atomically, verified when read.

    A program that ends without `wait` or `close` may lose the save in progress; the one before then remains.
    One process writes to a folder; others may read it meanwhile.

    Args:
        folder: where it lies; the first save makes it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder).absolute()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None

    def save(self, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Copy the arrays to the host and return; a thread writes them and then removes the save before.

        The arrays may be donated or overwritten at once afterwards. The last save counts, whatever its step.
        A save still in progress is waited for first.

        Args:
            step: the caller's count; any order.
            tree: pytree of jax or NumPy arrays of any shape: numbers, booleans, typed PRNG keys.
            meta: plain JSON: dicts with text keys, lists (a tuple comes back as one), text, numbers, None.
                Floats come back exactly, NaN and infinities too.

        Raises:
            CheckpointError: a leaf is no array, `meta` is no plain JSON, the save before this one failed, or
                JAX runs in several processes.
        """
        self.wait()
        if jax.process_count() > 1:  # a one-off save of Orbax would wait for all of them
            raise CheckpointError(
                f"Expected one JAX process, got {jax.process_count()}; do train in one process to keep checkpoints."
            )
        meta = plain(meta, "meta")
        specs, arrays = to_host(tree)
        _orbax()  # imported here, so that the thread never imports beside the caller
        content = {"format": _FORMAT, "step": int(step), "meta": meta, "leaves": specs}
        self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="cnnlab-checkpoint")
        self._pending = self._pool.submit(self._write, content, arrays)

    def wait(self) -> None:
        """Return when the last save is complete.

        Raises:
            CheckpointError: it failed, perhaps because the disk is full; the checkpoint before it remains.
        """
        if self._pending is None:
            return
        error = self._pending.exception()
        self._pending = None
        if isinstance(error, CheckpointError):
            raise error
        if error is not None:
            raise CheckpointError(
                f"Expected to write a checkpoint to {self.folder}, got '{_one_line(error)}'; "
                "do check the disk's room and rights."
            ) from error

    def load(self, like: Any) -> tuple[int, Any, dict[str, Any]]:
        """Read the newest checkpoint that is whole; a warning names each damaged one before it.

        Args:
            like: pytree of arrays or `jax.ShapeDtypeStruct`, with the shapes and dtypes that were saved.

        Returns:
            The step; the tree, with NumPy arrays for leaves and jax arrays for typed PRNG keys; the meta.

        Raises:
            CheckpointError: there is none, all are damaged, `like` differs from what was saved, or the save
                in progress, which is waited for, failed.
        """
        wanted = dict(named_leaves(like))
        specs = {name: spec_of(name, leaf) for name, leaf in wanted.items()}

        def read(folder: Path) -> tuple[int, Any, dict[str, Any]]:
            content = _read_meta(folder)
            expect_same(folder, specs, content["leaves"])
            leaves = _read_leaves(folder, wanted, content["leaves"])
            return content["step"], jax.tree.unflatten(jax.tree.structure(like), leaves), content["meta"]

        return self._read_newest(read)

    def meta(self) -> tuple[int, dict[str, Any]]:
        """Read step and meta of the newest checkpoint, without its arrays.

        Raises:
            CheckpointError: there is none, or its meta is damaged.
        """
        content = self._read_newest(_read_meta)
        return content["step"], content["meta"]

    def exists(self) -> bool:
        """Whether a complete checkpoint was published here; `load` may still find it damaged and say so.

        Raises:
            CheckpointError: the save in progress, which is waited for, failed.
        """
        self.wait()
        return bool(self._newest_first())

    def close(self) -> None:
        """Wait for the save in progress and end the thread; the store can be used again afterwards.

        Raises:
            CheckpointError: that save failed.
        """
        try:
            self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = None

    def _write(self, content: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        _remove_drafts(self.folder)
        draft = self.folder / f"{_DRAFT}{uuid.uuid4().hex}"
        draft.mkdir()
        try:
            for name, array in arrays.items():
                content["leaves"][name]["sha256"] = sha256_of(array)
            filled = {name: array for name, array in arrays.items() if array.size}
            if filled:  # Orbax refuses arrays without elements, and no arrays at all
                with _ONE_AT_A_TIME:
                    _orbax().save(draft / "arrays", filled)
            _write_meta(draft, content)
            for path in (draft, *draft.rglob("*")):
                _flush_to_disk(path)
            older = self._numbered()
            target = self.folder / f"save-{max(older, default=0) + 1:08d}"
            os.replace(draft, target)
            _flush_to_disk(self.folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
        for path in older.values():  # renamed first: there is never half a save under a name that counts
            os.replace(path, self.folder / f"{_DRAFT}{uuid.uuid4().hex}")
        _remove_drafts(self.folder)

    def _numbered(self) -> dict[int, Path]:
        names = ((_SAVE.fullmatch(path.name), path) for path in self.folder.iterdir())
        return {int(match[1]): path for match, path in names if match}

    def _newest_first(self) -> list[Path]:
        """Published folders; one without meta.json was not written by us."""
        try:
            found = sorted(self._numbered().items(), reverse=True)
            return [path for _, path in found if (path / "meta.json").exists()]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise CheckpointError(
                f"Expected to read {self.folder}, got '{_one_line(error)}'; do check its rights."
            ) from error

    def _read_newest(self, read: Callable[[Path], _T]) -> _T:
        """What `read` makes of the newest save that it does not find damaged."""
        self.wait()
        damaged: list[str] = []
        for folder in (found := self._newest_first()):
            try:
                value = read(folder)
            except _Damaged as damage:
                damaged.append(f"{folder.name} damaged ({damage})")
                continue
            for text in damaged:
                warnings.warn(
                    f"Expected a whole checkpoint in {self.folder}, got {text}; an older one is used.",
                    stacklevel=3,
                )
            return value
        if found != self._newest_first():  # meanwhile another process published a newer one and removed these
            return self._read_newest(read)
        raise CheckpointError(
            f"Expected a whole checkpoint in {self.folder}, got {'; '.join(damaged) or 'none'}; "
            "do train again, or name another run."
        )


def _orbax() -> Any:
    from orbax.checkpoint import v1

    return v1


def _read_leaves(folder: Path, wanted: dict[str, Any], saved: dict[str, Any]) -> list[Any]:
    """The leaves in the order of `wanted`, each with the checksum it was saved with."""
    stored = {
        name: jax.eval_shape(jax.random.key_data, leaf) if is_key(leaf) else leaf for name, leaf in wanted.items()
    }
    blank: dict[str, np.ndarray] = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in stored.items()}
    filled = {name: array for name, array in blank.items() if array.size}
    leaves: list[Any] = []
    try:
        arrays = dict(blank)
        if filled:
            with _ONE_AT_A_TIME:
                arrays |= _orbax().load(folder / "arrays", filled)
        for name, leaf in wanted.items():
            array = np.asarray(arrays[name])
            if sha256_of(array) != saved[name]["sha256"]:
                raise _Damaged(f"the bytes of {name} are not those that were saved")
            if is_key(leaf):
                leaves.append(jax.random.wrap_key_data(jnp.asarray(array), impl=saved[name]["impl"]))
            else:
                leaves.append(array)
    except _Damaged:
        raise
    except Exception as error:  # whatever Orbax and TensorStore make of broken files
        raise _Damaged(_one_line(error)) from error
    return leaves


def _write_meta(draft: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content)
    text = f'{{"sha256": "{hashlib.sha256(text.encode()).hexdigest()}", "content": {text}}}\n'
    if len(text) > _MAX_META_BYTES:
        raise CheckpointError(f"Expected meta below {_MAX_META_BYTES:,} bytes, got {len(text):,}; do save less in it.")
    (draft / "meta.json").write_text(text, encoding="ascii")


def _read_meta(folder: Path) -> dict[str, Any]:
    path = folder / "meta.json"
    try:
        if path.stat().st_size > _MAX_META_BYTES:
            raise _Damaged("meta.json is too large")
        whole = json.loads(path.read_text(encoding="ascii"))
        content = whole["content"]
        if hashlib.sha256(json.dumps(content).encode()).hexdigest() != whole["sha256"]:
            raise _Damaged("meta.json is not what was saved")
        if content["format"] != _FORMAT:
            raise _Damaged(f"it has format {content['format']}, this cnnlab reads {_FORMAT}")
        if not isinstance(content["step"], int) or not isinstance(content["meta"], dict):
            raise _Damaged("meta.json has no step or meta")
        _ = [(spec["shape"], spec["dtype"], spec["sha256"]) for spec in content["leaves"].values()]
        return content
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _Damaged(f"meta.json: {_one_line(error)}") from error


def _flush_to_disk(path: Path) -> None:
    """Ask the system to write a file or folder out, so that a power cut finds what a kill would find."""
    if os.name == "nt" and path.is_dir():
        return  # Windows has no handle for this
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_drafts(folder: Path) -> None:
    for path in folder.glob(f"{_DRAFT}*"):
        shutil.rmtree(path, ignore_errors=True)


def _one_line(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= 200 else f"{text[:199]}…"
