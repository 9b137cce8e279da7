"""What colours training images have: exact sums over all pixels, a few megabytes at a time."""

from __future__ import annotations

import numpy as np

from .dataset import Split

_PIXELS = 1 << 18  # of one chunk


def mean_colour(images: Split | np.ndarray) -> np.ndarray:
    """Return the mean of the pixels, float64 `[channels]`, in [0, 1].

    Args:
        images: a split, or uint8 `[n, height, width, channels]`.
    """
    return _moments(images)[0]


def principal_colours(images: Split | np.ndarray) -> np.ndarray:
    """Return the principal colours of the pixels, float64 `[channels, channels]`, a row each, the strongest first.

    A row is an eigenvector, of length 1, of the covariance of the channels in [0, 1], times its eigenvalue (the
    variance along it, as in the paper; not its root). Its largest entry is positive.

    Args:
        images: a split, or uint8 `[n, height, width, channels]`.

    Source:
        Krizhevsky, Sutskever and Hinton (2012), "ImageNet Classification with Deep Convolutional Neural Networks",
        section 4.1.
    """
    values, vectors = np.linalg.eigh(_moments(images)[1])  # ascending; a column each
    rows = vectors.T[::-1]
    largest = np.take_along_axis(rows, np.abs(rows).argmax(axis=1, keepdims=True), axis=1)
    return rows * np.sign(largest) * np.maximum(values[::-1, None], 0)


def _moments(images: Split | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance of the channels in [0, 1].

    The sums are whole numbers, exact in float64 up to 10**11 pixels, so that neither chunks nor threads decide.
    """
    images = images.images if isinstance(images, Split) else images
    channels = images.shape[-1]
    total, products, pixels = np.zeros(channels), np.zeros((channels, channels)), images.size // channels
    step = max(1, _PIXELS // (images.shape[1] * images.shape[2]))
    for start in range(0, len(images), step):
        chunk = images[start : start + step].reshape(-1, channels).astype(np.float64)  # [pixels, c]
        total += chunk.sum(axis=0)
        products += chunk.T @ chunk
    mean = total / pixels
    return mean / 255, (products / pixels - np.outer(mean, mean)) / 255**2
