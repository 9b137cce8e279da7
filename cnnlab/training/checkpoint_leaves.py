"""What a checkpoint holds: the leaves of a tree by name, as copies on the host, and a plain JSON meta."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class CheckpointError(Exception):
    """A checkpoint that cannot be written, found, trusted or used; the text says what to do, in one line."""


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """`params/conv1/kernel` and its leaf, for every leaf."""
    seen: set[str] = set()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in seen:
            raise CheckpointError(f"Expected one leaf per name, got two at {name!r}; do rename one of them.")
        seen.add(name)
        yield name, leaf


def is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def spec_of(name: str, leaf: Any) -> dict[str, Any]:
    """Shape and dtype as they stand in meta.json."""
    if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
        got = type(leaf).__name__
    elif is_key(leaf):
        return {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
    else:
        dtype = np.dtype(leaf.dtype)
        if dtype.isnative and (dtype.kind == "b" or jnp.issubdtype(dtype, np.number)):
            return {"shape": list(leaf.shape), "dtype": dtype.name}
        got = f"dtype {dtype}"
    raise CheckpointError(f"Expected an array of numbers at {name!r}, got {got}; do convert it with jnp.asarray.")


def to_host(tree: Any) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Copies of all leaves that nothing else can change or donate, and what they are."""
    specs: dict[str, dict[str, Any]] = {}
    data: dict[str, Any] = {}
    for name, leaf in named_leaves(tree):
        specs[name] = spec_of(name, leaf)
        if is_key(leaf):
            specs[name]["impl"] = str(jax.random.key_impl(leaf))
            leaf = jax.random.key_data(leaf)
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()  # all transfers start before the first is waited for
        data[name] = leaf
    return specs, {name: np.array(leaf, order="C") for name, leaf in data.items()}


def sha256_of(array: np.ndarray) -> str:
    flat = np.ascontiguousarray(array).reshape(-1)
    return hashlib.sha256(flat.view(np.uint8).data).hexdigest()


def expect_same(folder: Path, wanted: dict[str, dict[str, Any]], saved: dict[str, Any]) -> None:
    """Names the leaves in which the saved tree differs from the wanted one."""
    differences = [f"no {name}" for name in wanted if name not in saved]
    differences += [f"an extra {name}" for name in saved if name not in wanted]
    for name in (name for name in wanted if name in saved):
        is_, was = (f"{spec['dtype']}{spec['shape']}" for spec in (wanted[name], saved[name]))
        if is_ != was:
            differences.append(f"{name} {was} instead of {is_}")
    if differences:
        more = f" and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise CheckpointError(
            f"Expected the checkpoint {folder} to fit, got {', '.join(differences[:4])}{more}; "
            "do load it with the model and the optimiser that it was saved with."
        )


def plain(value: Any, where: str) -> Any:
    """A copy of plain JSON that the caller can no longer change."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    got = "a dict with keys that are no text" if isinstance(value, dict) else type(value).__name__
    raise CheckpointError(f"Expected plain JSON at {where}, got {got}; do convert it first.")
