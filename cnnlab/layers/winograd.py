"""3x3 convolutions in fewer multiplications on CPU: Winograd's minimal filtering, F(2x2, 3x3).

A tile of 4 x 4 input pixels makes 2 x 2 output pixels. With tile and kernel transformed, each along both axes, it takes
16 products per pair of channels in place of 36 (Lavin and Gray 2015, "Fast algorithms for convolutional neural
networks"). So a convolution is 16 matrix products over tiles, which XLA's libraries for CPU do at full rate, with
two threads too, and the transformations are additions. The same holds for the gradient of the kernel, with the roles
changed. All that the transformations multiply by is 1, -1 and 1 / 2, so rounding errors are one to some two times those
of a direct sum.

The batch is taken in parts, so that what passes from transformation to product comes from a cache. The price is a
program of many small operations, which takes longer to compile, and room for the transformed kernels. An input that is
not finite spoils all outputs of its tiles, where a direct sum would spoil those in the kernel's reach.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .parts_of_batch import join_parts, sum_over_parts

Pads = Sequence[tuple[int, int]]
Grid = list[list[jax.Array]]  # 4 x 4 arrays, one for each place in a transformed tile

_KERNEL = (3, 3)
# Found by trying batches of 1 to 1024 images of 2 to 56 pixels and 16 to 512 channels on one kind of processor.
_FEWEST_CHANNELS = 48  # in and out
_FEWEST_PAIRS_OF_CHANNELS = 2**14  # for the gradient of the kernel
_FEWEST_TILES = 64
_FEWEST_MULTIPLY_ADDS = 2**28  # below, what is gained is less than the longer compilation for a long time
_SMALL = (2, 2)  # pixels; of such maps, smaller than the kernel, XLA's own convolutions are a hundred times slower
_BYTES_OF_A_PLACE = 2**19  # of a part's tiles, at one place of the transformed tile: half of a core's second cache
_MOST_OF_AN_IMAGE = 2  # times that much; a larger image would have to be taken in parts itself


def winograd_pays(input_shape: Sequence[int], kernel_shape: Sequence[int], padding: Pads, dtype: Any) -> bool:
    """Whether a convolution by steps of one pixel is made faster by way of transformed tiles.

    Args:
        input_shape: `[batch, height, width, in_channels]`.
        kernel_shape: `[kernel_height, kernel_width, in_channels, out_channels]`, those two in any order.
        padding: `(before, after)` for height and width.
        dtype: of both.
    """
    if dtype != jnp.float32 or tuple(kernel_shape[:2]) != _KERNEL or min(kernel_shape[2:]) < _FEWEST_CHANNELS:
        return False
    size = _out_size(input_shape, padding)
    if min(map(min, padding)) < 0 or _bytes_of_an_image(size, kernel_shape) > _MOST_OF_AN_IMAGE * _BYTES_OF_A_PLACE:
        return False
    if tuple(input_shape[1:3]) == _SMALL:
        return True
    batch = input_shape[0]
    enough = batch * math.prod(size) * math.prod(kernel_shape) >= _FEWEST_MULTIPLY_ADDS
    return enough and batch * math.prod(map(_tiles_along, size)) >= _FEWEST_TILES


def gradient_of_kernel_pays(input_shape: Sequence[int], kernel_shape: Sequence[int], padding: Pads, dtype: Any) -> bool:
    """Likewise for the gradient of the kernel of such a convolution, whose products are of few rows and columns."""
    enough = math.prod(kernel_shape[2:]) >= _FEWEST_PAIRS_OF_CHANNELS
    return enough and winograd_pays(input_shape, kernel_shape, padding, dtype)


@jax.named_scope("winograd")
def winograd_conv(inputs: jax.Array, kernel: jax.Array, padding: Pads, *, turned: bool = False) -> jax.Array:
    """Convolve by steps of one pixel.

    Args:
        inputs: `[batch, height, width, in_channels]`.
        kernel: `[3, 3, in_channels, out_channels]`; turned, `[3, 3, out_channels, in_channels]`.
        padding: `(before, after)` for height and width, not negative.
        turned: convolve with the kernel turned by half a turn, as gradients of inputs are made.

    Returns:
        `[batch, out_height, out_width, out_channels]`.
    """
    size = _out_size(inputs.shape, padding)
    kernels = _transform_kernel(kernel)
    if turned:  # transformed, that is another order
        kernels = [[kernels[row][column] for column in (3, 1, 2, 0)] for row in (3, 1, 2, 0)]
    contract = (((1,), (1 if turned else 0,)), ((), ()))

    def of_part(inputs: jax.Array) -> jax.Array:
        tiles = _transform_inputs(_for_whole_tiles(inputs, padding, size))
        shape = tiles[0][0].shape[:3]
        products = [
            [lax.dot_general(_rows(t), k, contract).reshape(*shape, -1) for t, k in zip(*pair, strict=True)]
            for pair in zip(tiles, kernels, strict=True)
        ]
        return _transform_products(products)[:, : size[0], : size[1]]

    return join_parts(of_part, inputs, images_of_a_part(inputs.shape[0], size, kernel.shape))


@jax.named_scope("winograd")
def winograd_gradient_of_kernel(inputs: jax.Array, gradient: jax.Array, padding: Pads) -> jax.Array:
    """Return the gradient of the kernel of `winograd_conv`.

    Args:
        inputs: `[batch, height, width, in_channels]`.
        gradient: of the outputs, `[batch, out_height, out_width, out_channels]`.
        padding: `(before, after)` for height and width.

    Returns:
        `[3, 3, in_channels, out_channels]`.
    """
    size = gradient.shape[1:3]
    like = jax.ShapeDtypeStruct((*_KERNEL, inputs.shape[3], gradient.shape[3]), inputs.dtype)
    contract = (((0,), (0,)), ((), ()))

    def of_part(inputs: jax.Array, gradient: jax.Array) -> jax.Array:
        ends = [(0, 2 * _tiles_along(n) - n) for n in size]
        tiles = _transform_inputs(_for_whole_tiles(inputs, padding, size))
        of_products = _transform_gradient(jnp.pad(gradient, ((0, 0), *ends, (0, 0))))
        of_kernels = [
            [lax.dot_general(_rows(t), _rows(g), contract) for t, g in zip(*pair, strict=True)]
            for pair in zip(tiles, of_products, strict=True)
        ]
        return _gather_kernel(of_kernels)

    return sum_over_parts(of_part, (inputs, gradient), images_of_a_part(inputs.shape[0], size, like.shape), like)


def _out_size(input_shape: Sequence[int], padding: Pads) -> tuple[int, int]:
    height, width = (n + sum(pads) - 2 for n, pads in zip(input_shape[1:3], padding, strict=True))
    return height, width


def _tiles_along(pixels: int) -> int:
    """How many tiles make so many output pixels along a side."""
    return -(-pixels // 2)


def _bytes_of_an_image(size: Sequence[int], kernel_shape: Sequence[int]) -> int:
    """At one place of all its transformed tiles, of inputs or outputs, whichever have more channels."""
    tiles = math.prod(map(_tiles_along, size))
    return tiles * max(kernel_shape[2:]) * jnp.dtype(jnp.float32).itemsize


def images_of_a_part(batch: int, size: Sequence[int], kernel_shape: Sequence[int]) -> int:
    """How many images are taken at a time: about so many as make `_BYTES_OF_A_PLACE`, without a rest where that can be.

    Args:
        batch: how many there are.
        size: height and width of the output.
        kernel_shape: `[3, 3, channels, channels]`.
    """
    part = 2 ** max(0, round(math.log2(_BYTES_OF_A_PLACE / _bytes_of_an_image(size, kernel_shape))))
    if batch < 2 * part:
        return batch
    return next((n for n in range(part, part // 2, -1) if batch % n == 0), part)


def _for_whole_tiles(inputs: jax.Array, padding: Pads, size: Sequence[int]) -> jax.Array:
    """Pad for whole tiles: they begin at every second pixel and are four pixels wide."""
    ends = [
        (low, 2 * _tiles_along(out) + 2 - low - n)
        for (low, _), out, n in zip(padding, size, inputs.shape[1:3], strict=True)
    ]
    return jnp.pad(inputs, ((0, 0), *ends, (0, 0)))


def _rows(tiles: jax.Array) -> jax.Array:
    return tiles.reshape(-1, tiles.shape[-1])


def _transform_inputs(inputs: jax.Array) -> Grid:
    def along(x: jax.Array, axis: int) -> list[jax.Array]:
        end = x.shape[axis] - 2
        a, b, c, d = (lax.slice_in_dim(x, i, i + end - 1, stride=2, axis=axis) for i in range(4))
        return [a - c, b + c, c - b, b - d]

    return [along(row, 2) for row in along(inputs, 1)]


def _transform_kernel(kernel: jax.Array) -> Grid:
    def along(a: jax.Array, b: jax.Array, c: jax.Array) -> list[jax.Array]:
        return [a, (a + b + c) / 2, (a - b + c) / 2, c]

    return [along(row[0], row[1], row[2]) for row in along(kernel[0], kernel[1], kernel[2])]


def _transform_products(products: Grid) -> jax.Array:
    def along(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
        return [a + b + c, b - c - d]

    columns = [along(*column) for column in zip(*products, strict=True)]
    rows = [jnp.stack(along(*row), 3) for row in zip(*columns, strict=True)]  # each [batch, h, w, 2, channels]
    outputs = jnp.stack(rows, 2)
    batch, height, _, width, _, channels = outputs.shape
    return outputs.reshape(batch, 2 * height, 2 * width, channels)


def _transform_gradient(gradient: jax.Array) -> Grid:
    """The transposed `_transform_products`."""

    def along(x: jax.Array, axis: int) -> list[jax.Array]:
        end = x.shape[axis]
        a, b = (lax.slice_in_dim(x, i, end - 1 + i, stride=2, axis=axis) for i in range(2))
        return [a, a + b, a - b, -b]

    return [along(row, 2) for row in along(gradient, 1)]


def _gather_kernel(of_kernels: Grid) -> jax.Array:
    """The transposed `_transform_kernel`."""

    def along(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> list[jax.Array]:
        return [a + (b + c) / 2, (b - c) / 2, (b + c) / 2 + d]

    rows = [along(*row) for row in of_kernels]
    columns = [along(*column) for column in zip(*rows, strict=True)]  # by column of the kernel, then by row
    return jnp.stack([jnp.stack(row) for row in zip(*columns, strict=True)])
