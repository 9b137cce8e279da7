"""What belongs to a convolution beside its arrays, and the options of the convolutions that make its gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

from jax import lax

Pair = tuple[int, int]
Spread = list[tuple[int, int, int]]  # as `lax.pad` takes it: before, after and between, for each axis

_NHWC = ("NHWC", "HWIO", "NHWC")
_NO_PADS = ((0, 0), (0, 0))


class ConvolutionOptions(NamedTuple):
    """Strides, padding and the two dilations of a convolution in NHWC, hashable."""

    strides: Pair
    padding: tuple[Pair, Pair]
    lhs_dilation: Pair
    rhs_dilation: Pair

    @classmethod
    def of(cls, strides: Any, padding: Any, lhs_dilation: Any, rhs_dilation: Any) -> ConvolutionOptions:
        """Options from sequences of any kind."""
        rows, columns = padding
        return cls(tuple(strides), (tuple(rows), tuple(columns)), tuple(lhs_dilation), tuple(rhs_dilation))

    def reference(self, inputs: Any, kernel: Any) -> Any:
        """JAX's own convolution."""
        return lax.conv_general_dilated(inputs, kernel, *self, dimension_numbers=_NHWC)

    @property
    def by_one(self) -> bool:
        """Whether the window moves by one pixel, and neither inputs nor kernel are dilated."""
        return self.strides == self.lhs_dilation == self.rhs_dilation == (1, 1)

    @property
    def crops(self) -> bool:
        """Whether one of the four paddings is negative."""
        return min(map(min, self.padding)) < 0

    def in_pairs(self) -> ConvolutionOptions:
        """Options of the convolution that makes pairs of columns (`paired_columns.py`)."""
        return self._replace(strides=(1, 2))

    def of_inputs(self, out_size: Pair, in_size: Pair, kernel_size: Pair) -> ConvolutionOptions:
        """Options of the convolution of the output's gradient with the turned kernel that gives that of the inputs."""
        pads = []
        for out, size, k, s, (low, _), a, d in zip(out_size, in_size, kernel_size, *self, strict=True):
            before = (k - 1) * d - low
            pads.append((before, (size - 1) * a + (k - 1) * d + 1 - ((out - 1) * s + 1) - before))
        return self.of(self.lhs_dilation, pads, self.strides, self.rhs_dilation)

    def of_kernel(self, out_size: Pair, in_size: Pair, kernel_size: Pair) -> ConvolutionOptions:
        """Options of the convolution of the inputs with the gradient of the output that gives that of the kernel."""
        pads = []
        for out, size, k, s, (low, _), a, d in zip(out_size, in_size, kernel_size, *self, strict=True):
            pads.append((low, (k - 1) * d + (out - 1) * s + 1 - ((size - 1) * a + 1) - low))
        return self.of(self.rhs_dilation, pads, self.lhs_dilation, self.strides)

    def with_padded_inputs(self) -> tuple[Spread | None, ConvolutionOptions]:
        """What `lax.pad` has to do to inputs that are cropped or dilated, and the rest, which any library can do."""
        if self.lhs_dilation == (1, 1) and not self.crops:
            return None, self
        pixels = [(*pad, d - 1) for pad, d in zip(self.padding, self.lhs_dilation, strict=True)]
        return [(0, 0, 0), *pixels, (0, 0, 0)], self._replace(padding=_NO_PADS, lhs_dilation=(1, 1))

    @property
    def foldable(self) -> bool:
        """Whether `folded` exists: the window of a kernel's gradient has to move by one column."""
        return self.strides[1] == 1

    def folded(self, channels: int) -> ConvolutionOptions:
        """The gradient of a kernel as a convolution of one wide image, whose rows hold `width * channels` numbers.

        Its channels are the images of the batch, and its kernel, the gradient of the output, is dilated by the channels
        besides. The output, `[1, kernel_height, kernel_width * in_channels, out_channels]`, is the gradient of the
        kernel as it lies in memory; its many columns are what a library for matrix products wants, where a convolution
        with the channels for a batch has three (docs/performance.md).

        Returns:
            The options for inputs that `with_padded_inputs` has made.
        """
        _, (strides, (rows, (left, right)), _, (down, along)) = self.with_padded_inputs()
        padding = (rows, (left * channels, right * channels))
        return ConvolutionOptions(strides, padding, (1, 1), (down, along * channels))
