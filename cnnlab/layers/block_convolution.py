"""Convolution with few channels, and max pooling after it, as one matrix product over blocks of pixels.

A block of `p x q` output pixels depends on `(p + kh - 1) x (q + kw - 1)` input pixels through one banded
matrix that holds the kernel `p * q` times, shifted. Cutting the image into such blocks turns the
convolution, and both of its gradients, into dense matrix products: more multiplications than needed
(the band is padded with zeros), but at the full rate of the processor. The arrays keep the batch
in the last dimension meanwhile, so that every copy around the products moves whole vectors. Max pooling
is a maximum over rows of the product, whose order is free to choose.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from .finished import finished
from .maximum import first_maximum

Pads = Sequence[tuple[int, int]]

# Beyond this many products (kernel area x input channels) XLA's own convolution on CPU wins.
_MOST_PRODUCTS_PER_OUTPUT = 160
# With more, bringing the product's rows into the order of channels costs more than it gains.
MOST_OUT_CHANNELS = 16
# With more blocks XLA's own convolution wins, but where it is slow, with a large kernel of few output channels: with a
# kernel of 5 x 5, as LeNet's first, images of 96 pixels are faster by blocks, and of 128 pixels slower (measured).
_MOST_BLOCKS, _MOST_BLOCKS_OF_FEW = 64, 800
_FEW_OUT_CHANNELS, _LARGE_KERNEL = 8, 25  # the latter in pixels
# The product may have so many times the multiply-adds of the convolution; with more zeros in the band, XLA's wins.
_MOST_WASTE = 3.0
# The blocks of so many images of 32 pixels fit into the caches; a larger batch goes through in parts (measured: at 128
# images, in parts of 32, LeNet's step takes less than half the time), but not in more parts than these.
_FITTING_IMAGES, _MOST_PARTS = 32, 8
# Cost of copying one number into a block, in multiply-adds of a matrix product (measured, AVX-512).
_COPY_COST = 64


def choose_block(
    input_shape: Sequence[int], kernel_shape: Sequence[int], padding: Pads, pool: tuple[int, int] = (1, 1)
) -> tuple[int, int] | None:
    """Return the block `(p, q)` of output pixels that costs least, or None where blocks do not pay.

    Args:
        input_shape: `[batch, height, width, in_channels]`.
        kernel_shape: `[kernel_height, kernel_width, in_channels, out_channels]`.
        padding: `(before, after)` for height and width.
        pool: pooling window; a block is made of whole windows.
    """
    kh, kw, ci, co = kernel_shape
    height, width = _output_size(input_shape, kernel_shape, padding)
    if kh * kw == 1 or kh * kw * ci > _MOST_PRODUCTS_PER_OUTPUT or co > MOST_OUT_CHANNELS:
        return None
    if height < pool[0] or width < pool[1]:
        return None

    def blocks(block: tuple[int, int]) -> int:
        return -(-height // block[0]) * -(-width // block[1])

    def taps(block: tuple[int, int]) -> int:
        return (block[0] + kh - 1) * (block[1] + kw - 1) * ci

    def cost(block: tuple[int, int]) -> float:
        return blocks(block) * taps(block) * (max(block[0] * block[1] * co, 16) + _COPY_COST)

    few = co <= _FEW_OUT_CHANNELS and kh * kw >= _LARGE_KERNEL
    most_blocks = _MOST_BLOCKS_OF_FEW if few else _MOST_BLOCKS
    sides = (1, 2, 3, 4, 6, 7, 8)
    sizes = [(p, q) for p in sides for q in sides if p <= height and q <= width]
    sizes = [(p, q) for p, q in sizes if p % pool[0] == 0 and q % pool[1] == 0]
    sizes = [size for size in sizes if blocks(size) <= most_blocks and taps(size) <= _MOST_WASTE * kh * kw * ci]
    return min(sizes, key=cost, default=None)


@jax.named_scope("conv_by_blocks")
def conv_by_blocks(
    inputs: jax.Array,
    kernel: jax.Array,
    *,
    padding: Pads,
    block: tuple[int, int],
    pool: tuple[int, int] = (1, 1),
) -> jax.Array:
    """Convolve with stride 1, then take the maximum over windows that do not overlap.

    Args:
        inputs: `[batch, height, width, in_channels]`.
        kernel: `[kernel_height, kernel_width, in_channels, out_channels]`.
        padding: `(before, after)` for height and width; negative values crop.
        block: `(p, q)`, output pixels per block, multiples of `pool`; they need not divide the output.
        pool: pooling window; `(1, 1)` for none. Rows and columns that fill no window are left out.

    Returns:
        `[batch, out_height // pool[0], out_width // pool[1], out_channels]`.
    """
    batch = inputs.shape[0]
    size = max(_FITTING_IMAGES, -(-batch // _MOST_PARTS))
    if size >= batch:
        return _conv_part(inputs, kernel, padding, block, pool)
    parts = [inputs[i : i + size] for i in range(0, batch, size)]
    return jnp.concatenate([_conv_part(part, kernel, padding, block, pool) for part in parts])


def _conv_part(
    inputs: jax.Array, kernel: jax.Array, padding: Pads, block: tuple[int, int], pool: tuple[int, int]
) -> jax.Array:
    batch = inputs.shape[0]
    (p, q), (kh, kw, ci, co) = block, kernel.shape
    height, width = (n // k for n, k in zip(_output_size(inputs.shape, kernel.shape, padding), pool, strict=True))
    py, px = p // pool[0], q // pool[1]  # pooled pixels per block
    ny, nx = -(-height // py), -(-width // px)

    # A block sees the tiles of `p x q` pixels from its own on: pad (or crop) to so many whole ones.
    (top, _), (left, _) = padding
    tall, wide = -(-(p + kh - 1) // p), -(-(q + kw - 1) // q)
    bottom = (ny + tall - 1) * p - inputs.shape[1] - top
    right = (nx + wide - 1) * q - inputs.shape[2] - left
    x = finished(inputs.transpose(1, 2, 3, 0))  # [h, w, ci, b]; not made again for each block that sees it
    if any((top, bottom, left, right)):
        zero = jnp.zeros((), x.dtype)
        x = jax.lax.pad(x, zero, [(top, bottom, 0), (left, right, 0), (0, 0, 0), (0, 0, 0)])
    x = x.reshape(ny + tall - 1, p, nx + wide - 1, q, ci, batch).transpose(1, 3, 4, 0, 2, 5)
    x = jnp.concatenate([x[:, :, :, i : i + ny] for i in range(tall)], axis=0)[: p + kh - 1]
    x = jnp.concatenate([x[:, :, :, :, i : i + nx] for i in range(wide)], axis=1)[:, : q + kw - 1]
    x = x.reshape((p + kh - 1) * (q + kw - 1) * ci, ny * nx * batch)  # of [P, Q, ci, ny, nx, b] with P = p + kh - 1

    band = _banded(_banded(kernel, 0, p), 1, q)  # [P, Q, ci, co, p, q]
    band = band.reshape(*band.shape[:4], py, pool[0], px, pool[1])
    band = band.transpose(0, 1, 2, 5, 7, 4, 6, 3)  # [P, Q, ci, pool, pool, py, px, co]
    band = band.reshape(-1, p * q * co)

    y = jax.lax.dot_general(band, x, (((0,), (0,)), ((), ())))  # [p*q*co, blocks]
    with jax.named_scope("max_pool"):
        y = first_maximum(y.reshape(pool[0] * pool[1], py, px, co, ny, nx, batch))
    y = y.transpose(3, 0, 4, 1, 2, 5)  # [ny, py, nx, px, co, b]
    y = y.reshape(ny * py, nx * px, co, batch)[:height, :width]
    return y.transpose(3, 0, 1, 2)  # [b, h, w, co]


def _output_size(input_shape: Sequence[int], kernel_shape: Sequence[int], padding: Pads) -> tuple[int, int]:
    height, width = (
        size + sum(pad) - k + 1 for size, pad, k in zip(input_shape[1:3], padding, kernel_shape[:2], strict=True)
    )
    return height, width


def _banded(kernel: jax.Array, axis: int, block: int) -> jax.Array:
    """Shift `kernel` along `axis` by 0 .. block - 1 within size + block - 1; shifts in a new last axis."""

    def shifted(i: int) -> jax.Array:
        pads = [(0, 0)] * kernel.ndim
        pads[axis] = (i, block - 1 - i)
        return jnp.pad(kernel, pads)

    return jnp.stack([shifted(i) for i in range(block)], axis=-1)
