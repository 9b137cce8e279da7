"""Augmentation and normalisation of image batches inside the compiled step.

Each function maps `images` float32 `[batch, height, width, channels]` in [0, 1] and a key to images of
the same shape and type; `build_augmentation` chains them in the order of the recipe's fields.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from .noise import fast_normal

Augmentation = Callable[[jax.Array, jax.Array], jax.Array]


def to_float(images: jax.Array) -> jax.Array:
    """Turn integer images, 0 to 255, into float32 in [0, 1]; images that are floats stay as they are."""
    if jnp.issubdtype(images.dtype, jnp.floating):
        return images
    return images.astype(jnp.float32) / 255.0


def add_noise(images: jax.Array, key: jax.Array, scale: float) -> jax.Array:
    """Add independent normal noise of standard deviation `scale` to every value."""
    return images + scale * fast_normal(key, images.shape)


def random_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Mirror each image left to right with probability one half."""
    flip = jax.random.bernoulli(key, 0.5, (images.shape[0], 1, 1, 1))
    return jnp.where(flip, images[:, :, ::-1], images)


def random_crop(images: jax.Array, key: jax.Array, pad: int) -> jax.Array:
    """Pad each image with `pad` zeros on every side and cut a random window of its own size."""
    _, height, width, channels = images.shape
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    corners = jax.random.randint(key, (images.shape[0], 2), 0, 2 * pad + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (height, width, channels))

    return jax.vmap(cut)(padded, corners)


def build_augmentation(*, noise: float = 0.0, flip: bool = False, crop: int = 0) -> Augmentation:
    """Chain crop, flip and noise, each left out at its neutral value, into one function."""
    parts: list[Augmentation] = []
    if crop:
        parts.append(lambda images, key: random_crop(images, key, crop))
    if flip:
        parts.append(random_flip)
    if noise:
        parts.append(lambda images, key: add_noise(images, key, noise))

    def augment(images: jax.Array, key: jax.Array) -> jax.Array:
        for i, part in enumerate(parts):
            images = part(images, jax.random.fold_in(key, i))
        return images

    return augment
