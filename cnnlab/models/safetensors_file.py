"""Safetensors files: an 8-byte length, a JSON header, plain numbers. Nothing in such a file can be executed."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_FLOATS = ("F64", "F32", "F16", "BF16")
_PICKLES = (".pth", ".pt", ".th", ".bin", ".ckpt", ".pkl", ".pickle", ".tar")
_LENGTH = 8  # bytes before the header


class WeightsError(ValueError):
    """Weights that cannot be read or do not fit the network; the text says what to do about it."""


class TensorFile:
    """An open safetensors file: names and shapes at once, numbers on request."""

    def __init__(self, path: Path, handle: Any):
        self.path = path
        self._handle = handle
        slices = {name: handle.get_slice(name) for name in handle.keys()}
        self._types: dict[str, str] = {name: part.get_dtype() for name, part in slices.items()}
        self.shapes: dict[str, tuple[int, ...]] = {name: tuple(part.get_shape()) for name, part in slices.items()}

    def read(self, name: str) -> np.ndarray:
        """Return one tensor in the type of the file; WeightsError when its numbers are no floating point numbers."""
        if self._types[name] not in _FLOATS:
            raise WeightsError(
                f"Expected numbers of type {', '.join(_FLOATS)} in {self.path}, got {self._types[name]} for {name}; "
                "do save the network's floating point weights (quantised ones are not supported)."
            )
        return self._handle.get_tensor(name)


@contextlib.contextmanager
def open_tensors(path: str | os.PathLike[str]) -> Iterator[TensorFile]:
    """Open a safetensors file for reading.

    The header is checked as a whole before any number is read: its length (at most 100 MB), its JSON, types,
    and offsets that cover the rest of the file without gap or overlap.

    Raises:
        OSError: no such file, or not readable.
        WeightsError: a pickle file, a damaged file, or no safetensors file at all.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    with path.open("rb") as file:
        start = file.read(_LENGTH + 1)
    if _is_pickle(start, path):
        raise WeightsError(_refusal(path))
    try:
        handle = safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise WeightsError(
            f"Expected a whole safetensors file, got {path} ({error}); do download or write it again."
        ) from error
    with handle:
        _refuse_duplicates(path)
        yield TensorFile(path, handle)


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray], metadata: dict[str, str]) -> None:
    """Write tensors with their names, the whole file or nothing.

    Args:
        path: the file; one that is there is replaced.
        tensors: arrays by name, in the order in which they are written.
        metadata: texts for the header.
    """
    from safetensors.numpy import save_file

    path = Path(path)
    # The format knows no strides. (`np.ascontiguousarray` would make a vector of a scalar.)
    whole = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.touch()  # a missing folder is an ordinary OSError
        save_file(whole, unfinished, metadata=metadata)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _is_pickle(start: bytes, path: Path) -> bool:
    """Whether a file that begins like this is what `torch.save` writes: a zip archive or a bare pickle."""
    if start[_LENGTH:] == b"{":  # a safetensors header; its length may begin with any byte
        return False
    return start.startswith((b"PK\x03\x04", b"\x80")) or path.suffix.lower() in _PICKLES


def _refusal(path: Path) -> str:
    target = path.with_suffix(".safetensors")
    code = (
        "import torch, safetensors.torch as s; "
        f"w = torch.load({str(path)!r}, map_location='cpu', weights_only=True); "
        "w = w.get('state_dict', w.get('model', w)); "  # in checkpoints, the weights are one entry among others
        f"s.save_file({{k: v.contiguous() for k, v in w.items()}}, {str(target)!r})"
    )
    return (
        f"Expected a safetensors file, got the pickle file {path}, which could run code when read; do convert it: "
        f'python -c "{code}"'
    )


def _refuse_duplicates(path: Path) -> None:
    """The specification forbids two tensors of one name, but readers let the last one win. Read after the checks."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        (twice, count), *_ = Counter(name for name, _ in pairs).most_common(1) or [("", 0)]
        if count > 1:
            raise WeightsError(f"Expected each name once in {path}, got {twice!r} {count} times; do write it again.")
        return dict(pairs)

    with path.open("rb") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        json.loads(file.read(length), object_pairs_hook=unique)
