"""Changes to a batch of images, each a plain function that compiles, maps over batches and keeps shape and type.

`images` are float32 `[batch, height, width, channels]` in [0, 1]; the key alone decides what chance does.

Where pixels move, they are fetched by one gather whose places are computed first. Padded copies, reversed copies and
selections between them read the same batch twice in one fused loop, which XLA on CPU runs an element at a time,
recomputing what stands before it: a crop and a flip took twelve times as long that way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from .noise import fast_normal

Fill = Literal["zero", "reflect"]
Colour = ArrayLike | Sequence[float]


def normalize(images: jax.Array, mean: Colour, std: Colour) -> jax.Array:
    """Return `(images - mean) / std`.

    A recipe's `standardize` does this inside the network (`cnnlab.layers.Standardized`), not here.

    Args:
        images: `[batch, height, width, channels]`.
        mean: a number for each channel, or one for all.
        std: likewise, positive.
    """
    return (images - _as_pixel(mean)) / _as_pixel(std)


def add_noise(images: jax.Array, key: jax.Array, scale: float) -> jax.Array:
    """Add independent normal noise of standard deviation `scale` to every value; it may leave [0, 1]."""
    return images + scale * fast_normal(key, images.shape)


def random_flip(images: jax.Array, key: jax.Array) -> jax.Array:
    """Mirror each image left to right with probability one half."""
    return mirror(images, jax.random.bernoulli(key, 0.5, images.shape[:1]))


def mirror(images: jax.Array, chosen: jax.Array) -> jax.Array:
    """Mirror the chosen images, bool `[batch]`, left to right."""
    columns = jnp.arange(images.shape[2])[None]
    columns = jnp.where(chosen[:, None], images.shape[2] - 1 - columns, columns)  # [b, w]
    return jnp.take_along_axis(images, columns[:, None, :, None], axis=2)


def random_crop(images: jax.Array, key: jax.Array, pad: int, fill: Fill = "zero") -> jax.Array:
    """Pad each image on every side and cut a window of its own size at a uniformly random place.

    Args:
        images: `[batch, height, width, channels]`.
        key: decides about the windows.
        pad: pixels on each side.
        fill: what they hold: "zero", or "reflect" for the image mirrored at the middle of its outermost pixels.
    """
    batch, height, width, _ = images.shape
    corners = jax.random.randint(key, (batch, 2), 0, 2 * pad + 1) - pad
    rows = corners[:, :1] + jnp.arange(height)[None]  # [b, h]
    columns = corners[:, 1:] + jnp.arange(width)[None]  # [b, w]
    inside = _within(rows, height)[:, :, None] & _within(columns, width)[:, None, :]  # [b, h, w]
    place = _reflected if fill == "reflect" else _clipped
    rows, columns = place(rows, height)[:, :, None], place(columns, width)[:, None, :]
    windows = images[jnp.arange(batch)[:, None, None], rows, columns]  # [b, h, w, c]
    return windows if fill == "reflect" else jnp.where(inside[..., None], windows, 0)


def cutout(images: jax.Array, key: jax.Array, size: int, fill: Colour = 0.0) -> jax.Array:
    """Erase a square at a uniformly random place of each image.

    The square lies fully inside the image, as in airbench96; in the paper its centre does, so that it may stick out.

    Args:
        images: `[batch, height, width, channels]`.
        key: decides about the places.
        size: side of the square in pixels.
        fill: what it holds then: a number for each channel, or one for all.

    Raises:
        ValueError: the square is larger than the images.

    Source:
        DeVries and Taylor (2017), "Improved Regularization of Convolutional Neural Networks with Cutout".
    """
    batch, height, width, _ = images.shape
    if not 0 <= size <= min(height, width):
        raise ValueError(f"Expected a cutout inside images of {height}x{width}, got {size}; do lower cutout.")
    places = jnp.asarray([[height - size + 1, width - size + 1]])
    corners = jnp.floor(jax.random.uniform(key, (batch, 2)) * places)  # whole numbers; compiles faster than `randint`
    top, left = corners[:, :1], corners[:, 1:]  # [b, 1] each
    rows, columns = jnp.arange(height)[None], jnp.arange(width)[None]
    in_rows = (rows >= top) & (rows < top + size)  # [b, h]
    in_columns = (columns >= left) & (columns < left + size)  # [b, w]
    inside = in_rows[:, :, None, None] & in_columns[:, None, :, None]  # [b, h, w, 1]
    return jnp.where(inside, _as_pixel(fill).astype(images.dtype), images)


def pca_colour(images: jax.Array, key: jax.Array, components: ArrayLike, scale: float) -> jax.Array:
    """Add to every pixel of an image the same random colour, along the principal colours of the training images.

    The colour is `sum_i a_i * components[i]` with `a_i` normal, of standard deviation `scale`, drawn once for each
    image. Values may leave [0, 1].

    Args:
        images: `[batch, height, width, channels]`.
        key: decides about the colours.
        components: `[k, channels]`, what `cnnlab.data.principal_colours` returns: eigenvectors times their eigenvalues.
        scale: standard deviation of the steps, 0.1 in the paper.

    Source:
        Krizhevsky, Sutskever and Hinton (2012), "ImageNet Classification with Deep Convolutional Neural Networks",
        section 4.1.
    """
    components = jnp.asarray(components, jnp.float32)
    steps = scale * fast_normal(key, (images.shape[0], len(components)))  # [b, k]
    colour = jnp.dot(steps, components, precision="highest")  # [b, c]; by default a GPU would round the factors
    return images + colour[:, None, None, :].astype(images.dtype)


def _within(places: jax.Array, size: int) -> jax.Array:
    return (places >= 0) & (places < size)


def _clipped(places: jax.Array, size: int) -> jax.Array:
    return jnp.clip(places, 0, size - 1)


def _reflected(places: jax.Array, size: int) -> jax.Array:
    """Bring places outside 0 to `size` - 1 back by reflection at these two, as often as it takes."""
    period = max(2 * (size - 1), 1)
    places = places % period
    return jnp.minimum(places, period - places)


def _as_pixel(colour: Colour) -> jax.Array:
    """A number for each channel, or one for all, as `[1, 1, 1, channels]` or `[1, 1, 1, 1]`."""
    return jnp.asarray(colour, jnp.float32).reshape(1, 1, 1, -1)
