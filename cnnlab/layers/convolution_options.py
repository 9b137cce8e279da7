"""What belongs to a convolution beside its arrays, and the options of the convolutions that make its gradients."""

from __future__ import annotations

from typing import Any

from jax import lax

Pair = tuple[int, int]
Spread = list[tuple[int, int, int]]  # as `lax.pad` takes it: before, after and between, for each axis

_NHWC = ("NHWC", "HWIO", "NHWC")
_NO_PADS = ((0, 0), (0, 0))


class ConvolutionOptions(tuple):
    """Strides, padding and the two dilations of a convolution in NHWC, hashable."""

    __slots__ = ()

    def reference(self, inputs: Any, kernel: Any) -> Any:
        """JAX's own convolution."""
        strides, padding, lhs_dilation, rhs_dilation = self
        return lax.conv_general_dilated(
            inputs, kernel, strides, padding, lhs_dilation, rhs_dilation, dimension_numbers=_NHWC
        )

    @property
    def by_one(self) -> bool:
        """Whether the window moves by one pixel, and neither inputs nor kernel are dilated."""
        strides, _, lhs_dilation, rhs_dilation = self
        return strides == lhs_dilation == rhs_dilation == (1, 1)

    def in_pairs(self) -> ConvolutionOptions:
        """Options of the convolution that makes pairs of columns (`paired_columns.py`)."""
        return ConvolutionOptions(((1, 2), *self[1:]))

    def of_inputs(self, out_size: Pair, in_size: Pair, kernel_size: Pair) -> ConvolutionOptions:
        """Options of the convolution of the output's gradient with the turned kernel that gives that of the inputs."""
        strides, _, lhs_dilation, rhs_dilation = self
        pads = []
        for out, size, k, s, (low, _), a, d in zip(out_size, in_size, kernel_size, *self, strict=True):
            before = (k - 1) * d - low
            pads.append((before, (size - 1) * a + (k - 1) * d + 1 - ((out - 1) * s + 1) - before))
        return ConvolutionOptions((lhs_dilation, tuple(pads), strides, rhs_dilation))

    def of_kernel(self, out_size: Pair, in_size: Pair, kernel_size: Pair) -> ConvolutionOptions:
        """Options of the convolution of the inputs with the gradient of the output that gives that of the kernel."""
        strides, _, lhs_dilation, rhs_dilation = self
        pads = []
        for out, size, k, s, (low, _), a, d in zip(out_size, in_size, kernel_size, *self, strict=True):
            pads.append((low, (k - 1) * d + (out - 1) * s + 1 - ((size - 1) * a + 1) - low))
        return ConvolutionOptions((rhs_dilation, tuple(pads), lhs_dilation, strides))

    def with_padded_inputs(self) -> tuple[Spread | None, ConvolutionOptions]:
        """What `lax.pad` has to do to inputs that are cropped or dilated, and the rest, which any library can do."""
        strides, padding, lhs_dilation, rhs_dilation = self
        if lhs_dilation == (1, 1) and min(min(padding)) >= 0:
            return None, self
        spread = [(0, 0, 0), *((*pad, d - 1) for pad, d in zip(padding, lhs_dilation, strict=True)), (0, 0, 0)]
        return spread, ConvolutionOptions((strides, _NO_PADS, (1, 1), rhs_dilation))

    @property
    def foldable(self) -> bool:
        """Whether `folded` exists: the window of a kernel's gradient has to move by one column."""
        return self[0][1] == 1

    def folded(self, channels: int) -> ConvolutionOptions:
        """The gradient of a kernel as a convolution of one wide image, whose rows hold `width * channels` numbers.

        Its channels are the images of the batch, and its kernel, the gradient of the output, is dilated by the channels
        besides. The output, `[1, kernel_height, kernel_width * in_channels, out_channels]`, is the gradient of the
        kernel as it lies in memory; its many columns are what a library for matrix products wants, where a convolution
        with the channels for a batch has three (docs/performance.md).

        Returns:
            The options for inputs that `with_padded_inputs` has made.
        """
        _, (strides, (rows, columns), _, (down, along)) = self.with_padded_inputs()
        columns = tuple(pad * channels for pad in columns)
        return ConvolutionOptions((strides, (rows, columns), (1, 1), (down, along * channels)))
