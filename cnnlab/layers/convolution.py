"""Convolution whose lowering is chosen by platform and shape, never by a flag of the user."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from flax import nnx
from jax import lax

from .block_convolution import choose_block, conv_by_blocks
from .dense_convolution import dense_conv
from .devices import several_devices
from .pooling import max_pool

_NHWC = lax.ConvDimensionNumbers(lhs_spec=(0, 3, 1, 2), rhs_spec=(3, 2, 0, 1), out_spec=(0, 3, 1, 2))


def conv_general_dilated(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    dimension_numbers: Any = None,
    feature_group_count: int = 1,
    **options: Any,
) -> jax.Array:
    """Convolve as `jax.lax.conv_general_dilated` does, on CPU with a faster lowering where there is one.

    On CPU a dense, undilated convolution of stride 1 with few channels becomes one matrix product over
    blocks of output pixels (`cnnlab.layers.block_convolution`): XLA's own kernel reaches a small part of
    the matrix-product rate there. Every other dense one is `cnnlab.layers.dense_convolution`, whose gradients are
    written in the form that XLA's compiler for CPU does fast, inside loops too, and which makes 3x3 convolutions of
    many channels in fewer multiplications (`cnnlab.layers.winograd`). On other platforms the programs are
    those of `jax.lax.conv_general_dilated`. The choice is made when the program is lowered, so one traced function
    serves all platforms. In a process with several CPU devices, over which a batch may be spread, dense convolutions
    stay convolutions.

    Args:
        inputs: `[batch, height, width, in_channels]`.
        kernel: `[kernel_height, kernel_width, in_channels / groups, out_channels]`.
        strides: one per spatial dimension.
        padding: "SAME", "VALID" or `(before, after)` per spatial dimension.
        lhs_dilation: input dilation per spatial dimension; None means 1.
        rhs_dilation: kernel dilation per spatial dimension; None means 1.
        dimension_numbers: as `jax.lax.conv_general_dilated` takes them.
        feature_group_count: number of groups.
        **options: passed on (`precision`, `preferred_element_type`, `out_sharding`, ...).

    Returns:
        `[batch, out_height, out_width, out_channels]`.
    """
    reference = partial(
        lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        lhs_dilation=lhs_dilation,
        rhs_dilation=rhs_dilation,
        dimension_numbers=dimension_numbers,
        feature_group_count=feature_group_count,
        **options,
    )
    dense = _is_plain(inputs, kernel) and feature_group_count == 1 and _are_defaults(options)
    dense = dense and (not isinstance(padding, str) or _all_ones(lhs_dilation))
    if not dense or lax.conv_dimension_numbers(inputs.shape, kernel.shape, dimension_numbers) != _NHWC:
        return reference(inputs, kernel)
    dilations = [(1, 1) if d is None else d for d in (lhs_dilation, rhs_dilation)]
    pads = _pads(inputs, kernel, strides, padding, dilations[1])
    by_one = all(_all_ones(values) for values in (strides, *dilations))
    block = _block(inputs, kernel, pads) if by_one else None
    if block is None:
        return dense_conv(
            inputs, kernel, strides=strides, padding=pads, lhs_dilation=dilations[0], rhs_dilation=dilations[1]
        )
    return lax.platform_dependent(
        inputs, kernel, cpu=partial(conv_by_blocks, padding=pads, block=block), default=reference
    )


def conv_max_pool(
    inputs: jax.Array,
    kernel: jax.Array,
    window: int | tuple[int, int],
    *,
    padding: str | Sequence[tuple[int, int]] = "VALID",
) -> jax.Array:
    """Convolve with stride 1, then `max_pool` with windows that do not overlap.

    The value is that of the two functions one after the other. On CPU and with few channels they are one
    matrix product over blocks, in which pooling costs next to nothing.

    Args:
        inputs: `[batch, height, width, in_channels]`.
        kernel: `[kernel_height, kernel_width, in_channels, out_channels]`.
        window: side of a square pooling window, or `(height, width)`.
        padding: of the convolution: "SAME", "VALID" or `(before, after)` per spatial dimension.

    Returns:
        `[batch, out_height, out_width, out_channels]`.
    """
    pool = (window, window) if isinstance(window, int) else window
    pads = _pads(inputs, kernel, (1, 1), padding)

    def reference(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        y = conv_general_dilated(inputs, kernel, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return max_pool(y, pool)

    block = _block(inputs, kernel, pads, pool) if _is_plain(inputs, kernel) else None
    if block is None:
        return reference(inputs, kernel)
    by_blocks = partial(conv_by_blocks, padding=pads, block=block, pool=pool)
    return lax.platform_dependent(inputs, kernel, cpu=by_blocks, default=reference)


def _block(
    inputs: jax.Array, kernel: jax.Array, pads: Sequence[tuple[int, int]], pool: tuple[int, int] = (1, 1)
) -> tuple[int, int] | None:
    """The block to convolve by on CPU, if that pays; with the batch last, the shares of several devices would move."""
    return None if several_devices() else choose_block(inputs.shape, kernel.shape, pads, pool)


def _is_plain(inputs: jax.Array, kernel: jax.Array) -> bool:
    """Whether they are images and filters of one type, and no size is symbolic."""
    sizes = (*inputs.shape, *kernel.shape)
    return inputs.ndim == 4 and inputs.dtype == kernel.dtype and all(isinstance(size, int) for size in sizes)


def _are_defaults(options: dict[str, Any]) -> bool:
    """Whether further options of `lax.conv_general_dilated` ask for nothing."""
    asked = {name: value for name, value in options.items() if value is not None}
    return asked.pop("batch_group_count", 1) == 1 and not asked


def _pads(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    dilation: Sequence[int] = (1, 1),
) -> Sequence[tuple[int, int]]:
    if not isinstance(padding, str):
        return padding
    window = [(k - 1) * d + 1 for k, d in zip(kernel.shape[:2], dilation, strict=True)]
    return lax.padtype_to_pads(inputs.shape[1:3], window, strides, padding)


def _all_ones(values: Sequence[int] | None) -> bool:
    return values is None or all(value == 1 for value in values)


class Conv(nnx.Conv):
    """A 2-D convolution layer: `[batch, h, w, in_features]` to `[batch, h', w', out_features]`.

    It is `flax.nnx.Conv`, parameter for parameter, with square kernels given as one number and
    `conv_general_dilated` of this module underneath.

    Args:
        in_features: input channels.
        out_features: output channels (filters).
        kernel_size: side of a square kernel, or `(height, width)`.
        strides: step of the window.
        **options: of `flax.nnx.Conv`: `padding`, `feature_group_count`, `kernel_dilation`, `use_bias`,
            `kernel_init`, `bias_init`, `dtype`, `param_dtype`, ...
        rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        kernel_size: int | Sequence[int],
        strides: int | Sequence[int] = 1,
        *,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        if isinstance(kernel_size, int):
            kernel_size = (kernel_size, kernel_size)
        options.setdefault("conv_general_dilated", conv_general_dilated)
        super().__init__(in_features, out_features, kernel_size, strides, rngs=rngs, **options)

    def max_pooled(self, inputs: jax.Array, window: int | tuple[int, int]) -> jax.Array:
        """Return `max_pool(self(inputs), window)`; bias and maximum commute, so the bias comes last.

        Args:
            inputs: `[batch, height, width, in_features]`.
            window: side of a square pooling window, or `(height, width)`; windows do not overlap.
        """
        simple = isinstance(self.padding, str) and self.padding in ("SAME", "VALID") and inputs.ndim == 4
        simple = simple and self.conv_general_dilated is conv_general_dilated
        unset = (self.mask, self.precision, self.preferred_element_type)
        ones = (self.strides, self.kernel_dilation, self.input_dilation, self.feature_group_count)
        if not simple or any(v is not None for v in unset) or any(v not in (1, (1, 1), None) for v in ones):
            return max_pool(self(inputs), window)
        bias = None if self.bias is None else self.bias[...]
        inputs, kernel, bias = self.promote_dtype((inputs, self.kernel[...], bias), dtype=self.dtype)
        y = conv_max_pool(inputs, kernel, window, padding=str(self.padding))
        return y if bias is None else y + bias.reshape(1, 1, 1, -1)
