"""Initial weights that depend on the data: a network may compute some of its own from training images."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnnlab.data.augmentation import to_float

PREPARATION_IMAGES = 5000


def prepared(network: nnx.Module, images: np.ndarray) -> nnx.Module:
    """Return the network after its method `prepare(images)`, where it has one, has seen the first training images.

    A network whose first weights depend on the data, such as `cnnlab.models.CifarNet`, has that method. It gets the
    images as its `__call__` does, float32 `[n, height, width, channels]` with n up to 5,000, and sets its own weights.

    Args:
        network: a new one; one that brings weights along is not to be prepared.
        images: uint8, or float in [0, 1], `[n, height, width, channels]`.
    """
    prepare = getattr(network, "prepare", None)
    if prepare is not None:
        prepare(to_float(jnp.asarray(images[:PREPARATION_IMAGES])))
    return network
