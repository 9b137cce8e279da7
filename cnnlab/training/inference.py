"""Logits of a whole set of images in one program, every image once."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from cnnlab.data.augmentation import to_float

from .state import Structure
from .step import Loss, Metrics


def default_batch_size() -> int:
    """Return how many images to pass at once: few on CPU, where the caches are small (measured)."""
    return 100 if jax.default_backend() == "cpu" else 1000


def infer(
    structure: Structure, params: Any, extra: Any, images: jax.Array, *, batch_size: int | None = None
) -> jax.Array:
    """Return the logits `[n, classes]` of all images, network in evaluation mode.

    The images are padded to whole batches inside the program and the logits of the padding cut off.

    Args:
        structure: the network's graph.
        params: its trained arrays.
        extra: its other arrays.
        images: uint8, or float in [0, 1], `[n, height, width, channels]`.
        batch_size: images per pass; it bounds the memory and does not change the result.
    """
    return _infer(structure, params, extra, images, batch_size=batch_size or default_batch_size())


@partial(jax.jit, static_argnames=("structure", "batch_size"))
def _infer(structure: Structure, params: Any, extra: Any, images: jax.Array, *, batch_size: int) -> jax.Array:
    n = images.shape[0]
    size = max(min(batch_size, n), 1)
    padding = -n % size
    model = structure.merge(params, extra, train=False)

    def logits(batch: jax.Array) -> jax.Array:
        return model(to_float(batch)).astype(jnp.float32)  # pyright: ignore[reportCallIssue]

    if n == size:
        return logits(images)
    padded = jnp.pad(images, ((0, padding), (0, 0), (0, 0), (0, 0)))
    batches = padded.reshape(-1, size, *images.shape[1:])
    return jax.lax.map(logits, batches).reshape(n + padding, -1)[:n]


@partial(jax.jit, static_argnames=("loss",))
def score(logits: jax.Array, labels: jax.Array, *, loss: Loss) -> Metrics:
    """Return loss and correct answers summed over all images.

    Args:
        logits: `[n, classes]`.
        labels: int `[n]`.
        loss: `(logits, labels) -> [n]`.
    """
    correct = (jnp.argmax(logits, axis=-1) == labels).sum(dtype=jnp.int32)
    count = jnp.asarray(labels.shape[0], jnp.int32)
    return Metrics(loss(logits, labels).sum(dtype=jnp.float32), correct, count)


@jax.jit
def all_finite(tree: Any) -> jax.Array:
    """Return whether every number of a pytree of float arrays is finite, as one boolean."""
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
