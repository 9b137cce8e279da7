"""What cannot work is refused before anything is compiled: seeds, and labels or images that a network does not know."""

from __future__ import annotations

import operator
from typing import Any

import jax
import numpy as np
from flax import nnx

from cnnlab.data import Split

_SEEDS = 2**32  # what a uint32 holds


def expect_seed(seed: Any) -> int:
    """Return a seed as an int; ValueError when it is no whole number from 0 to 2**32 - 1."""
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < _SEEDS:
        raise ValueError(f"Expected a whole number from 0 to {_SEEDS - 1} for a seed, got {seed!r}; do choose another.")
    return number


def label_range(split: Split) -> tuple[int, int]:
    """Return the smallest and the largest label."""
    labels = np.asarray(split.labels)
    return int(labels.min()), int(labels.max())


def expect_labels(name: str, labels: tuple[int, int], classes: int) -> None:
    """Raise ValueError when labels, given as smallest and largest, are no classes of the network.

    Nothing else would notice: on the device a label out of range picks some other logit.
    """
    low, high = labels
    if low < 0 or high >= classes:
        raise ValueError(
            f"Expected {name} labels from 0 to {classes - 1}, got {low} to {high}; "
            "do renumber them, or create the network with more classes."
        )


def count_classes(network: nnx.Module, image_shape: tuple[int, ...]) -> int:
    """Return how many logits a network (abstract will do) gives for an image, found out in the abstract.

    Args:
        network: it is left as it is.
        image_shape: `(height, width, channels)`.

    Raises:
        ValueError: it cannot take such images, or does not map `[batch, h, w, c]` to `[batch, classes]`.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), np.float32)
    shown = "x".join(map(str, image_shape))
    network = nnx.merge(*nnx.split(network))  # the caller's stays in its mode
    network.eval()
    graph, state = nnx.split(network)

    def logits(state: Any, images: Any) -> Any:
        return nnx.merge(graph, state)(images)  # pyright: ignore[reportCallIssue]

    try:
        got = jax.eval_shape(logits, state, images)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Expected a network for images {shown}, got one that cannot take them ({error}); "
            "do resize the images, or create the network for them."
        ) from error
    shape = getattr(got, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != 1:
        raise ValueError(f"Expected logits [batch, classes] of the network, got {got}; do return one row per image.")
    return shape[1]
