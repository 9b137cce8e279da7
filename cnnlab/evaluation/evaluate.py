"""Evaluate a network on a set of labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnnlab.data import Split
from cnnlab.training.inference import default_batch_size, infer
from cnnlab.training.state import split_model
from cnnlab.training.step import cross_entropy

from .augmented import Augmented, TestTimeAugmented
from .metrics import Evaluation, evaluation_from_predictions

_IN_FLIGHT = 2  # batches that the device has while the host reads the one before
_ROUNDING = 1e-5  # what arithmetic may add to a float image


def compute_logits(
    model: nnx.Module,
    images: np.ndarray,
    *,
    batch_size: int | None = None,
    image_shape: tuple[int, ...] | None = None,
) -> np.ndarray:
    """Return float32 logits `[n, classes]` of a network in evaluation mode; the model keeps its mode.

    The images go through the network in batches of one size, the last one padded: one program serves every number of
    images above `batch_size`, and one for each power of two serves those below.

    Args:
        model: maps `[batch, height, width, channels]` in [0, 1] to logits.
        images: uint8, or float in [0, 1], `[n, height, width, channels]`.
        batch_size: images per pass.
        image_shape: `(height, width, channels)` that the images must have; by default what the model knows of it.

    Raises:
        ValueError: no image, another type or shape, or floats that are not in [0, 1].
    """
    images = np.asarray(images)
    _expect_images(images, image_shape or getattr(model, "image_shape", None))
    structure, params, extra = split_model(model)
    size = batch_size or default_batch_size()
    size = min(size, 1 << (len(images) - 1).bit_length())
    found: list[Any] = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        padding = np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)
        padded = jnp.asarray(np.concatenate([batch, padding]) if len(padding) else batch)
        try:
            rows = infer(structure, params, extra, padded, batch_size=size)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"Expected images that the network can take, got {_by(batch.shape[1:])} ({error}); do resize them."
            ) from error
        found.append(rows)
        if len(found) > _IN_FLIGHT:  # the device goes on meanwhile
            found[-1 - _IN_FLIGHT] = np.asarray(found[-1 - _IN_FLIGHT])
    # Cut on the host: each length of the last batch would be a program.
    return np.concatenate([np.asarray(rows) for rows in found])[: len(images)]


def evaluate(
    model: nnx.Module,
    split: Split,
    *,
    classes: Sequence[str] | None = None,
    batch_size: int | None = None,
    test_time_augmentation: Augmented | None = None,
) -> Evaluation:
    """Measure a network on a set of images; every image counts exactly once.

    Args:
        model: maps images in [0, 1] to logits.
        split: uint8 images and labels, e.g. `dataset.test`.
        classes: names of the classes; numbers when left out.
        batch_size: images per pass; it does not change the result.
        test_time_augmentation: "mirror" or "multi-crop" to look at several views of each image (`TestTimeAugmented`).
            Such an accuracy stands beside the one without, never in its place.

    Raises:
        ValueError: the set is empty, its images do not fit, or a label is no class of the network.
    """
    if len(split) == 0:
        raise ValueError("Expected at least one image to evaluate, got none; do pass another split.")
    if test_time_augmentation is not None:
        model = TestTimeAugmented(model, test_time_augmentation)
    logits = compute_logits(model, split.images, batch_size=batch_size)
    names = tuple(classes) if classes is not None else tuple(str(i) for i in range(logits.shape[-1]))
    if int(np.max(split.labels)) >= logits.shape[-1]:
        raise ValueError(
            f"Expected labels below {logits.shape[-1]}, the outputs of the network, got {int(np.max(split.labels))}; "
            "do create the model with more classes."
        )
    loss = float(jax.device_get(cross_entropy(jnp.asarray(logits), jnp.asarray(split.labels)).mean()))
    return evaluation_from_predictions(split.labels, logits.argmax(axis=-1), names, loss=loss)


def _expect_images(images: np.ndarray, shape: Sequence[int] | None) -> None:
    """Raise ValueError for what is no batch of images, or images of another shape than the network's."""
    if images.ndim != 4:
        raise ValueError(
            f"Expected images [n, height, width, channels], got shape {images.shape}; "
            "do add the missing axes, such as images[None] for one image."
        )
    if len(images) == 0:
        raise ValueError("Expected at least one image, got none; do pass some.")
    if shape is not None and images.shape[1:] != tuple(shape):
        raise ValueError(
            f"Expected images {_by(shape)}, as the network was trained on, got {_by(images.shape[1:])}; "
            "do resize them, or pass image files."
        )
    if images.dtype == np.uint8:
        return
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"Expected images uint8, or float in [0, 1], got {images.dtype}; do convert them.")
    low, high = float(images.min()), float(images.max())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):  # so that NaN is refused too
        raise ValueError(
            f"Expected float images from 0 to 1, got {low:g} to {high:g}; "
            "do divide by 255, and leave standardising to the network."
        )


def _by(shape: Any) -> str:
    return "x".join(map(str, shape))
