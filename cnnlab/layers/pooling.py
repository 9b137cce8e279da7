"""Max, min and average pooling over `[batch, height, width, channels]`: in windows, global and adaptive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import lax

from .block_convolution import MOST_OUT_CHANNELS
from .maximum import first_maximum, first_maximum_of

Pair = tuple[int, int]
Window = int | Pair
Padding = str | Sequence[Pair]

_MOST_SLICES = 16  # and phases along a side of a window; more of them would take long to compile


@jax.named_scope("max_pool")
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
    pads = _pads(images, window, strides, padding)
    if pads is None:
        return reference(images)
    # What a convolution by blocks has made, which has few channels, has the batch as last dimension.
    if window == strides and not any(map(any, pads)) and images.shape[-1] <= MOST_OUT_CHANNELS:
        on_cpu = partial(_max_pool_disjoint, window=window)
    elif max(*window, *strides) <= _MOST_SLICES:
        on_cpu = partial(_by_slices, window, strides, pads, -jnp.inf, first_maximum_of)
    else:
        return reference(images)
    return lax.platform_dependent(images, cpu=on_cpu, default=reference)


def min_pool(images: jax.Array, window: Window, strides: Window | None = None, padding: Padding = "VALID"):
    """Take the minimum of each window: `-max_pool(-images)`. Arguments and result as `max_pool`."""
    if not jnp.issubdtype(images.dtype, jnp.floating):  # unsigned numbers have no negative ones
        window, strides = _pair(window), _pair(window if strides is None else strides)
        return nnx.min_pool(images, window_shape=window, strides=strides, padding=padding)  # pyright: ignore[reportArgumentType]
    return -max_pool(-images, window, strides, padding)


@jax.named_scope("avg_pool")
def avg_pool(
    images: jax.Array,
    window: Window,
    strides: Window | None = None,
    padding: Padding = "VALID",
    *,
    count_include_pad: bool = True,
):
    """Take the mean of each window.

    Args:
        images: `[batch, height, width, channels]`.
        window: side of a square window, or `(height, width)`.
        strides: step of the window; by default the window itself (no overlap).
        padding: "VALID", "SAME" or `(before, after)` per spatial dimension.
        count_include_pad: whether the padded zeros count; otherwise it is the mean of the pixels that exist, NaN
            where none does.

    Returns:
        `[batch, out_height, out_width, channels]`, of the images' type, or float32 for integers.
    """
    window, strides = _pair(window), _pair(window if strides is None else strides)
    options: Any = {"window_shape": window, "strides": strides, "padding": padding}
    if not jnp.issubdtype(images.dtype, jnp.floating):
        images = images.astype(jnp.float32)

    def reference(images: jax.Array) -> jax.Array:
        mean = nnx.avg_pool(images, **options, count_include_pad=count_include_pad)
        return mean.astype(images.dtype)  # the counts of pixels are float32

    pads = _pads(images, window, strides, padding)
    if pads is None or max(*window, *strides) > _MOST_SLICES:
        return reference(images)
    counts: Any = window[0] * window[1]
    if not count_include_pad:
        rows, columns = map(_pixels, images.shape[1:3], window, strides, pads)
        counts = np.outer(rows, columns)[None, ..., None]

    def on_cpu(images: jax.Array) -> jax.Array:
        return _by_slices(window, strides, pads, 0, _sum_of, images) / jnp.asarray(counts, images.dtype)

    return lax.platform_dependent(images, cpu=on_cpu, default=reference)


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


def _pair(value: Window) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _pads(images: jax.Array, window: Pair, strides: Pair, padding: Padding) -> Sequence[Pair] | None:
    """Padding as numbers; None for what is left to Flax: integers, other ranks, symbolic sides, no window that fits."""
    if images.ndim != 4 or not jnp.issubdtype(images.dtype, jnp.floating):
        return None
    if not all(isinstance(side, int) for side in images.shape[1:3]):
        return None
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(images.shape[1:3], window, strides, padding)
    fits = all(n + sum(pad) >= k for n, pad, k in zip(images.shape[1:3], padding, window, strict=True))
    return [(low, high) for low, high in padding] if fits else None


def _by_slices(
    window: Pair,
    strides: Pair,
    pads: Sequence[Pair],
    fill: float,
    combine: Callable[..., jax.Array],
    images: jax.Array,
) -> jax.Array:
    """Combine the elements of each window, along columns and then along rows, without XLA's windows and scatters.

    The first maximum of the first row that has it is the first in row-major order. The elements are slices of phases:
    phase r has every stride-th element from r on. A strided slice would do, but its gradient puts zeros between
    elements and adds such arrays, while that of the phases is one concatenation.
    """
    for axis in (2, 1):
        size, stride, (low, high) = window[axis - 1], strides[axis - 1], pads[axis - 1]
        length = images.shape[axis] + low + high
        count, rows = (length - size) // stride + 1, -(-length // stride)
        padding = [(0, 0, 0)] * 4
        padding[axis] = (low, high + rows * stride - length, 0)
        if any(padding[axis]):
            images = lax.pad(images, jnp.asarray(fill, images.dtype), padding)
        cut = images.reshape(*images.shape[:axis], rows, stride, *images.shape[axis + 1 :])
        phases = [phase.squeeze(axis + 1) for phase in lax.split(cut, [1] * stride, axis + 1)]
        starts = [(i % stride, i // stride) for i in range(size)]
        images = combine(*(lax.slice_in_dim(phases[r], i, i + count, axis=axis) for r, i in starts))
    return images


def _sum_of(*parts: jax.Array) -> jax.Array:
    return reduce(jnp.add, parts)


def _pixels(side: int, window: int, stride: int, pad: Pair) -> np.ndarray:
    """How many of the pixels of each window along one side exist."""
    starts = np.arange(-pad[0], side + pad[1] - window + 1, stride)
    return np.maximum(np.minimum(starts + window, side) - np.maximum(starts, 0), 0)


def _max_pool_disjoint(images: jax.Array, *, window: Pair) -> jax.Array:
    """Max pooling of windows that do not overlap, batch last, without select-and-scatter."""
    batch, height, width, channels = images.shape
    (p, q), rows, columns = window, height // window[0], width // window[1]
    x = images.transpose(1, 2, 3, 0)[: rows * p, : columns * q]  # [h, w, c, b]
    x = x.reshape(rows, p, columns, q, channels, batch).transpose(1, 3, 0, 2, 4, 5)  # [p, q, h', w', c, b]
    return first_maximum(x.reshape(p * q, *x.shape[2:])).transpose(3, 0, 1, 2)  # [b, h', w', c]
