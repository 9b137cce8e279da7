"""Classify image files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flax import nnx
from scipy.special import softmax

from cnnlab.data import read_image

from .evaluate import compute_logits


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image.

    Attributes:
        image: the file, or "image 0", ... for arrays.
        labels: names of the most probable classes, best first.
        probabilities: of these classes, 0 to 1.
    """

    image: str
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.labels[0]

    def __str__(self) -> str:
        guesses = ", ".join(f"{n} {p:.1%}" for n, p in zip(self.labels, self.probabilities, strict=True))
        return f"{self.image}: {guesses}"


def predict(
    model: nnx.Module,
    images: str | Path | Sequence[str | Path] | np.ndarray,
    *,
    classes: Sequence[str] | None = None,
    image_shape: tuple[int, int, int] | None = None,
    top_k: int = 3,
) -> list[Prediction]:
    """Return the most probable classes of each image.

    Args:
        model: e.g. from `cnnlab.load` or `Run.best`, which know their classes and image shape.
        images: files (resized to the model's images), or uint8 / float in [0, 1] `[n, h, w, c]`.
        classes: names; by default those the model was trained on, else numbers.
        image_shape: `(height, width, channels)` files are brought to and arrays must have; by default that of the
            training images, else (32, 32, 3) for files and any for arrays.
        top_k: how many classes per image.

    Raises:
        cnnlab.data.ImageError: a file is missing, damaged or no image (named in the message).
        ValueError: no image, arrays that are no such images, or top_k below 1.
    """
    if top_k < 1:
        raise ValueError(f"Expected top_k of at least 1, got {top_k}.")
    if isinstance(images, str | Path):
        images = [images]
    if len(images) == 0:
        raise ValueError("Expected at least one image, got none; do name image files.")
    known_classes, image_shape = getattr(model, "classes", None), image_shape or getattr(model, "image_shape", None)
    height, width, channels = image_shape or (32, 32, 3)
    if isinstance(images, np.ndarray):
        names, pixels = [f"image {i}" for i in range(len(images))], images
    else:
        paths = [Path(path) for path in images]
        names = [str(path) for path in paths]
        pixels = np.stack([read_image(path, (height, width), channels) for path in paths])
    probabilities = softmax(compute_logits(model, pixels, image_shape=image_shape), axis=-1)
    labels = tuple(classes or known_classes or (str(i) for i in range(probabilities.shape[-1])))
    if len(labels) < probabilities.shape[-1]:
        raise ValueError(f"Expected a name for each of {probabilities.shape[-1]} classes, got {len(labels)} names.")
    order = np.argsort(-probabilities, axis=-1, kind="stable")[:, :top_k]
    return [
        Prediction(name, tuple(labels[i] for i in best), tuple(float(row[i]) for i in best))
        for name, row, best in zip(names, probabilities, order, strict=True)
    ]
