"""Layers in NumPy and float64, written from their definitions: the oracle of the tests of whole networks."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


def conv(
    x: np.ndarray, layer: Mapping, *, stride: int = 1, padding: tuple[int, int] = (0, 0), groups: int = 1
) -> np.ndarray:
    """`[b, h, w, c]` to `[b, h', w', filters]`; group g of the filters sees group g of the channels."""
    kernel, bias = np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)
    x = np.pad(x, ((0, 0), padding, padding, (0, 0)))
    cut = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))  # [b, h', w', c, kh, kw]
    cut = cut[:, ::stride, ::stride]
    parts = zip(np.split(cut, groups, axis=3), np.split(kernel, groups, axis=3), strict=True)
    return np.concatenate([np.einsum("bijchw,hwco->bijo", a, k, optimize=True) for a, k in parts], axis=-1) + bias


def dense(x: np.ndarray, layer: Mapping) -> np.ndarray:
    """`[b, n]` to `[b, m]`."""
    return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)


def windows(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """All windows, `[b, h', w', c, size, size]`."""
    return np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))[:, ::stride, ::stride]


def max_pool(x: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Maxima of windows that lie within the image."""
    return windows(x, size, stride).max((-2, -1))


def adaptive_avg_pool(x: np.ndarray, side: int) -> np.ndarray:
    """Means of a `side` x `side` grid of windows that cover the image, as PyTorch defines them."""
    result = np.zeros((len(x), side, side, x.shape[-1]))
    (h, w) = x.shape[1:3]
    for i in range(side):
        for j in range(side):
            rows = slice(i * h // side, -(-(i + 1) * h // side))
            result[:, i, j] = x[:, rows, slice(j * w // side, -(-(j + 1) * w // side))].mean((1, 2))
    return result


def with_random_numbers(model: nnx.Module, spread: float = 0.1) -> nnx.Module:
    """Fill an abstract model (`nnx.eval_shape`) with numbers, none of them zero, in evaluation mode."""
    rng = np.random.default_rng(1)
    kinds = nnx.Any(nnx.Param, nnx.BatchStat)

    def fill(path: Any, leaf: Any) -> jax.Array:
        positive = "var" in jax.tree_util.keystr(path)
        return jnp.asarray(
            rng.uniform(0.5 if positive else -spread, 2 if positive else spread, leaf.shape), jnp.float32
        )

    nnx.update(model, jax.tree_util.tree_map_with_path(fill, nnx.state(model, kinds)))
    model.eval()
    return model


def arrays(model: nnx.Module) -> dict:
    """The parameters and statistics as a dictionary by attribute names."""
    return nnx.to_pure_dict(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))


def count(model: nnx.Module) -> int:
    """Trained numbers of a model, which may be abstract."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def forward(model: nnx.Module, images: Any) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits in one compiled program; what it changes in the model is lost."""
    graph, state = nnx.split(model)

    def run(state: nnx.State, images: Any) -> Any:
        copy: Any = nnx.merge(graph, state)
        features = copy.features(images)
        return features, features if copy.head is None else copy(images)

    features, logits = jax.jit(run)(state, images)
    return np.asarray(features), np.asarray(logits)
