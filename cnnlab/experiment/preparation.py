"""Initial weights that depend on the data: a network may compute some of its own from training images."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnnlab.data.augmentation import to_float

_IMAGES = 5000
_PIXELS = _IMAGES * 32 * 32  # in all; larger images are fewer, so that they and their patches fit into memory


def prepared(network: nnx.Module, images: np.ndarray | jax.Array) -> nnx.Module:
    """Return the network after its method `prepare(images)`, where it has one, has seen some training images.

    A network whose first weights depend on the data, such as `cnnlab.models.CifarNet`, has that method. It gets the
    images as its `__call__` does, float32 `[n, height, width, channels]`, and sets its own weights. These are evenly
    spaced over all, since a data set may be sorted by class: 5,000, or as many as have the pixels of 5,000 images of
    CIFAR-10 where they are larger than those (but one at least).

    Args:
        network: a new one; one that brings weights along is not to be prepared.
        images: uint8, or float in [0, 1], `[n, height, width, channels]`.
    """
    prepare = getattr(network, "prepare", None)
    if prepare is not None:
        prepare(to_float(jnp.asarray(images[_places(images.shape)])))
    return network


def _places(shape: tuple[int, ...]) -> np.ndarray:
    """Return the places of the images to look at, int `[n]`, the first of all among them."""
    images, height, width = shape[:3]
    count = min(images, _IMAGES, max(1, _PIXELS // (height * width)))
    return np.arange(count) * images // count
