"""Convolution and pooling by `jax.lax` in float32, for tests that draw shapes.

Every drawn shape would cost a compilation. So the oracle puts all arrays onto canvases of one shape each and reads the
result from there: it is `lax.conv_general_dilated` or `lax.reduce_window` with steps of one and no padding, compiled
once. Padding is where the canvas is empty, a stride leaves out results, dilation leaves space, groups are a kernel of
blocks. That also keeps clear of XLA's convolution for CPU with negative padding, which reads outside of its input where
a negative number stands before and a positive one, no larger, after the pixels (openxla/xla#48713).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Pair = tuple[int, int]
Results = list[np.ndarray]

ONE = (1, 1)
IMAGES, KERNEL = (5, 18, 18, 20), (5, 5, 20, 20)  # the canvases
_OUT = (IMAGES[0], *(n - k + 1 for n, k in zip(IMAGES[1:3], KERNEL[:2], strict=True)), KERNEL[3])


def pads_of(size: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Any) -> Sequence[Pair]:
    return lax.padtype_to_pads(size, window, strides, padding) if isinstance(padding, str) else padding


def convolution(
    direction: Any,
    images: Any,
    kernel: Any,
    *,
    padding: Sequence[Pair],
    strides: Pair = ONE,
    lhs_dilation: Pair = ONE,
    rhs_dilation: Pair = ONE,
    groups: int = 1,
) -> Results:
    """The value, and the gradients towards images and kernel for a direction of the value's shape."""
    spread = [_Spread(n, d, *pad) for n, d, pad in zip(images.shape[1:3], lhs_dilation, padding, strict=True)]
    taps = [_Spread(n, d) for n, d in zip(kernel.shape[:2], rhs_dilation, strict=True)]
    outs = [_Spread(n, s) for n, s in zip(direction.shape[1:3], strides, strict=True)]
    value, of_images, of_kernel = _convolve(
        _put(direction, outs, 1, _OUT),
        _put(images, spread, 1, IMAGES),
        _put(_grouped(np.asarray(kernel, np.float32), groups), taps, 0, KERNEL),
    )
    in_channels, out_channels = images.shape[-1], kernel.shape[-1]
    dense = _take(of_kernel, (*kernel.shape[:2], in_channels, out_channels), taps, 0)
    parts = zip(np.split(dense, groups, 2), range(groups), strict=True)
    own = [np.split(part, groups, 3)[g] for part, g in parts]
    return [_take(value, direction.shape, outs, 1), _take(of_images, images.shape, spread, 1), np.concatenate(own, -1)]


def pooling(
    direction: Any, images: Any, *, window: Pair, strides: Pair, padding: Sequence[Pair], of_sums: bool = False
) -> Results:
    """Maxima, or sums, of windows, and their gradient for a direction of their shape."""
    spread = [_Spread(n, 1, *pad) for n, pad in zip(images.shape[1:3], padding, strict=True)]
    outs = [_Spread(n, s) for n, s in zip(direction.shape[1:3], strides, strict=True)]
    shape = (IMAGES[0], *(n - k + 1 for n, k in zip(IMAGES[1:3], window, strict=True)), IMAGES[3])
    canvas = _put(images, spread, 1, IMAGES, 0 if of_sums else -np.inf)
    value, gradient = _pool(_put(direction, outs, 1, shape), canvas, window=window, of_sums=of_sums)
    return [_take(value, direction.shape, outs, 1), _take(gradient, images.shape, spread, 1)]


def pooled_convolution(direction: Any, images: Any, kernel: Any, *, padding: Sequence[Pair], window: Pair) -> Results:
    """A convolution, and the maxima of windows that do not overlap."""
    sides = output_size(images.shape, kernel.shape, padding)
    unused = np.zeros((images.shape[0], *sides, kernel.shape[-1]))
    convolved = convolution(unused, images, kernel, padding=padding)[0]
    value, pulled = pooling(direction, convolved, window=window, strides=window, padding=((0, 0), (0, 0)))
    return [value, *convolution(pulled, images, kernel, padding=padding)[1:]]


def output_size(shape: Sequence[int], kernel_shape: Sequence[int], padding: Sequence[Pair]) -> Pair:
    """Of a convolution with steps of one."""
    height, width = (n + sum(pad) - k + 1 for n, pad, k in zip(shape[1:3], padding, kernel_shape[:2], strict=True))
    return height, width


class _Spread:
    """Where the elements of one side of an array lie on a canvas, and which of them do: negative padding crops."""

    def __init__(self, size: int, step: int, low: int = 0, high: int = 0):
        places = np.arange(size) * step + low
        self.kept = np.flatnonzero((places >= 0) & (places < (size - 1) * step + 1 + low + high))
        self.places = places[self.kept]


def _indices(shape: Sequence[int], spread: list[_Spread], axis: int) -> tuple[Any, Any]:
    """Of the array and of the canvas, of which two sides from `axis` on are spread."""
    rows, columns = spread
    mine, theirs = ([np.arange(n) for n in shape] for _ in range(2))
    mine[axis : axis + 2], theirs[axis : axis + 2] = [rows.kept, columns.kept], [rows.places, columns.places]
    return np.ix_(*mine), np.ix_(*theirs)


def _put(array: Any, spread: list[_Spread], axis: int, shape: Sequence[int], fill: float = 0) -> np.ndarray:
    canvas = np.full(shape, fill, np.float32)
    mine, theirs = _indices(array.shape, spread, axis)
    canvas[theirs] = np.asarray(array, np.float32)[mine]
    return canvas


def _take(canvas: Any, shape: Sequence[int], spread: list[_Spread], axis: int) -> np.ndarray:
    array = np.zeros(shape)
    mine, theirs = _indices(shape, spread, axis)
    array[mine] = np.asarray(canvas)[theirs]
    return array


def _grouped(kernel: np.ndarray, groups: int) -> np.ndarray:
    """The kernel `[h, w, in / groups, out]` as a dense one `[h, w, in, out]` of blocks between zeros."""
    parts = np.split(kernel, groups, -1)
    zeros = np.zeros_like(parts[0])
    rows = [np.concatenate([parts[g] if g == i else zeros for g in range(groups)], -1) for i in range(groups)]
    return np.concatenate(rows, 2)


@jax.jit
def _convolve(direction: jax.Array, images: jax.Array, kernel: jax.Array) -> tuple[jax.Array, ...]:
    convolve = partial(
        lax.conv_general_dilated, window_strides=ONE, padding="VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    value, pull = jax.vjp(convolve, images, kernel)
    return value, *pull(direction)


@partial(jax.jit, static_argnames=("window", "of_sums"))
def _pool(direction: jax.Array, images: jax.Array, *, window: Pair, of_sums: bool) -> tuple[jax.Array, ...]:
    start, combine = (0.0, lax.add) if of_sums else (-jnp.inf, lax.max)
    value, pull = jax.vjp(lambda x: lax.reduce_window(x, start, combine, (1, *window, 1), (1,) * 4, "VALID"), images)
    return value, *pull(direction)
