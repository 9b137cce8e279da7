"""Max, min and average pooling over `[batch, height, width, channels]`: in windows, global and adaptive."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from .block_convolution import MOST_OUT_CHANNELS
from .maximum import first_maximum, first_maximum_of

Window = int | tuple[int, int]
Padding = str | Sequence[tuple[int, int]]


def max_pool(images: jax.Array, window: Window, strides: Window | None = None, padding: Padding = "VALID"):
    """Take the maximum of each window; the gradient goes to the first maximum in row-major order.

    Args:
        images: `[batch, height, width, channels]`.
        window: side of a square window, or `(height, width)`.
        strides: step of the window; by default the window itself (no overlap).
        padding: "VALID", "SAME" or `(before, after)` per spatial dimension, filled with minus infinity.

    Returns:
        `[batch, out_height, out_width, channels]`.
    """
    window, strides = _pair(window), _pair(window if strides is None else strides)
    reference = partial(nnx.max_pool, window_shape=window, strides=strides, padding=padding)  # pyright: ignore[reportArgumentType]
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        return reference(images)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:3], window, strides, padding)
    if any(n + sum(pad) < k for n, pad, k in zip(images.shape[1:3], padding, window, strict=True)):
        return reference(images)  # no window fits: an empty result
    # What a convolution by blocks has made, which has few channels, has the batch as last dimension.
    if window == strides and not any(map(any, padding)) and images.shape[-1] <= MOST_OUT_CHANNELS:
        on_cpu = partial(_max_pool_disjoint, window=window)
    else:
        on_cpu = partial(_max_pool_by_slices, window=window, strides=strides, padding=padding)
    return lax.platform_dependent(images, cpu=on_cpu, default=reference)


def min_pool(images: jax.Array, window: Window, strides: Window | None = None, padding: Padding = "VALID"):
    """Take the minimum of each window: `-max_pool(-images)`. Arguments and result as `max_pool`."""
    return -max_pool(-images, window, strides, padding)


def avg_pool(images: jax.Array, window: Window, strides: Window | None = None, padding: Padding = "VALID"):
    """Take the mean of each window (padded zeros count). Arguments and result as `max_pool`."""
    window, strides = _pair(window), _pair(window if strides is None else strides)
    return nnx.avg_pool(images, window_shape=window, strides=strides, padding=padding)  # pyright: ignore[reportArgumentType]


def global_avg_pool(images: jax.Array) -> jax.Array:
    """Take the mean over all pixels: `[batch, height, width, channels]` to `[batch, channels]`."""
    return images.mean(axis=(-3, -2))


def global_max_pool(images: jax.Array) -> jax.Array:
    """Take the maximum over all pixels: `[batch, height, width, channels]` to `[batch, channels]`.

    The gradient is shared evenly among equal maxima.
    """
    return images.max(axis=(-3, -2))


def adaptive_avg_pool(images: jax.Array, size: Window) -> jax.Array:
    """Take the means of a grid of `size` windows that cover the images, as PyTorch's `AdaptiveAvgPool2d`.

    Window i of n over h rows has the rows floor(i h / n) to ceil((i + 1) h / n) - 1. Windows overlap where n does not
    divide h, and repeat pixels where h is smaller than n.

    Args:
        images: `[batch, height, width, channels]`.
        size: side of the square result, or `(height, width)`.

    Returns:
        `[batch, *size, channels]`.

    Raises:
        ValueError: a size that is not positive.
    """
    if min(_pair(size)) < 1:
        raise ValueError(f"Expected a positive size of the pooled images, got {size!r}; do ask for 1 or more.")
    for axis, count in zip((1, 2), _pair(size), strict=True):
        length = images.shape[axis]
        if length != count:
            bounds = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
            means = [lax.slice_in_dim(images, start, end, axis=axis).mean(axis) for start, end in bounds]
            images = jnp.stack(means, axis)
    return images


def _pair(value: Window) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _max_pool_by_slices(
    images: jax.Array, *, window: tuple[int, int], strides: tuple[int, int], padding: Sequence[tuple[int, int]]
) -> jax.Array:
    """Max pooling as maxima of strided slices, along columns and then along rows: no select-and-scatter."""
    (top, bottom), (left, right) = padding
    if any((top, bottom, left, right)):
        lowest = jnp.asarray(-jnp.inf, images.dtype)
        images = lax.pad(images, lowest, [(0, 0, 0), (top, bottom, 0), (left, right, 0), (0, 0, 0)])
    for axis in (2, 1):  # the first maximum of the first row that has it is the first in row-major order
        size, stride = window[axis - 1], strides[axis - 1]
        last = (images.shape[axis] - size) // stride * stride + 1
        parts = [lax.slice_in_dim(images, i, i + last, stride, axis) for i in range(size)]
        images = first_maximum_of(*parts)
    return images


def _max_pool_disjoint(images: jax.Array, *, window: tuple[int, int]) -> jax.Array:
    """Max pooling of windows that do not overlap, batch last, without select-and-scatter."""
    batch, height, width, channels = images.shape
    (p, q), rows, columns = window, height // window[0], width // window[1]
    x = images.transpose(1, 2, 3, 0)[: rows * p, : columns * q]  # [h, w, c, b]
    x = x.reshape(rows, p, columns, q, channels, batch).transpose(1, 3, 0, 2, 4, 5)  # [p, q, h', w', c, b]
    return first_maximum(x.reshape(p * q, *x.shape[2:])).transpose(3, 0, 1, 2)  # [b, h', w', c]
