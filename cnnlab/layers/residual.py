"""Residual blocks with the three shortcuts of the paper, and the same blocks without any.

Source: K. He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from .convolution import Conv
from .normalization import BatchNorm
from .squeeze_excite import SqueezeExcite
from .stochastic_depth import StochasticDepth

Shortcut = Literal["A", "B", "C"]
StrideIn = Literal["3x3", "1x1"]

# He et al. 2015, arXiv:1502.01852: the variance that keeps the size of gradients through ReLU layers.
he_normal_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")


def identity_shortcut(images: jax.Array, stride: int, features: int) -> jax.Array:
    """Bring images to the shape that a block gives, without parameters: shortcut A of the paper.

    Every `stride`-th pixel, from the first; channels of zeros behind the others. Nothing where the shape stays.

    Args:
        images: `[batch, height, width, channels]`.
        stride: step between the pixels that are kept.
        features: channels of the result, at least `channels`.

    Returns:
        `[batch, ceil(height / stride), ceil(width / stride), features]`.
    """
    images = images[:, ::stride, ::stride, :]
    missing = features - images.shape[-1]
    return jnp.pad(images, [(0, 0), (0, 0), (0, 0), (0, missing)]) if missing else images


class ResidualBlock(nnx.Module):
    """What basic and bottleneck blocks share: `relu(shortcut(x) + residual(x))`, or `relu(residual(x))` without skip.

    Shortcuts (section 3.3 and "Identity vs. Projection Shortcuts" in section 4.1 of the paper):
        A: the identity; where the shape changes, `identity_shortcut`. No parameters.
        B: the identity; where the shape changes, a 1x1 convolution and BatchNorm (`downsample`).
        C: a 1x1 convolution and BatchNorm everywhere.

    A kind of block builds its convolutions in `_build_residual` and applies them in `residual`.

    Args:
        in_features: channels of the input.
        features: filters of the 3x3 convolutions; the block gives `expansion * features` channels.
        stride: step of the block; it gives `ceil(height / stride)` rows.
        skip: whether there is a shortcut. False also leaves out all that belongs to it: the plain twin of the block.
        shortcut: which one.
        squeeze_excite: whether `SqueezeExcite` ends the residual branch.
        stochastic_depth: probability to drop the residual branch of an image while training.
        dtype: computation type; None keeps that of the inputs and parameters.
        rngs: source of the initial weights and of the drops.
    """

    expansion = 1

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        stride: int = 1,
        skip: bool = True,
        shortcut: Shortcut = "B",
        squeeze_excite: bool = False,
        stochastic_depth: float = 0.0,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        out_features = self.expansion * features
        if shortcut not in ("A", "B", "C"):
            raise ValueError(f"Expected shortcut to be A, B or C, got {shortcut!r}; do choose one of the three.")
        if shortcut == "A" and skip and out_features < in_features:
            raise ValueError(
                f"Expected shortcut A to keep or add channels, got {in_features} in and {out_features} out; do use B."
            )
        if stochastic_depth and not skip:
            raise ValueError(
                f"Expected stochastic_depth 0 in a block without a skip connection, got {stochastic_depth!r}; "
                "do keep the skip connection, since nothing else would pass a dropped branch."
            )
        self.stride, self.out_features, self.skip = stride, out_features, skip
        # BatchNorm follows each convolution, and would subtract a bias again.
        conv = partial(Conv, use_bias=False, kernel_init=he_normal_fan_out, dtype=dtype, rngs=rngs)
        norm = partial(BatchNorm, dtype=dtype, rngs=rngs)
        self._build_residual(in_features, features, conv, norm)
        self.squeeze_excite = SqueezeExcite(out_features, dtype=dtype, rngs=rngs) if squeeze_excite else None
        self.stochastic_depth = StochasticDepth(stochastic_depth, rngs=rngs) if stochastic_depth else None
        changes = stride != 1 or in_features != out_features
        if skip and (shortcut == "C" or (shortcut == "B" and changes)):
            self.downsample = nnx.List([conv(in_features, out_features, 1, stride), norm(out_features)])
        else:
            self.downsample = None

    @abstractmethod
    def _build_residual(self, in_features: int, features: int, conv: partial[Conv], norm: partial[BatchNorm]) -> None:
        """Build the convolutions of the residual branch, with what makes them and the BatchNorm behind them."""

    @abstractmethod
    def residual(self, images: jax.Array) -> jax.Array:
        """Return the residual branch, `[batch, h', w', expansion * features]`."""

    def shortcut(self, images: jax.Array) -> jax.Array:
        """Return what the skip connection carries, `[batch, h', w', expansion * features]`."""
        if self.downsample is None:
            return identity_shortcut(images, self.stride, self.out_features)
        conv, norm = self.downsample
        return norm(conv(images))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[batch, h, w, in_features]` to `[batch, h', w', expansion * features]`."""
        x = self.residual(images)
        if self.squeeze_excite is not None:
            x = self.squeeze_excite(x)
        if self.stochastic_depth is not None:
            x = self.stochastic_depth(x)
        return nnx.relu(self.shortcut(images) + x if self.skip else x)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions, each with BatchNorm: `[batch, h, w, in_features]` to `[batch, h', w', features]`.

    The first convolution has the stride. Args: see `ResidualBlock`.
    """

    def _build_residual(self, in_features: int, features: int, conv: partial[Conv], norm: partial[BatchNorm]) -> None:
        self.conv1 = conv(in_features, features, 3, self.stride, padding=1)
        self.bn1 = norm(features)
        self.conv2 = conv(features, features, 3, padding=1)
        self.bn2 = norm(features)

    def residual(self, images: jax.Array) -> jax.Array:
        """Return the residual branch, `[batch, h', w', features]`."""
        x = nnx.relu(self.bn1(self.conv1(images)))
        return self.bn2(self.conv2(x))


class Bottleneck(ResidualBlock):
    """A 1x1, a 3x3 and a 1x1 convolution: `[batch, h, w, in_features]` to `[batch, h', w', 4 * features]`.

    Each has BatchNorm; the first two have `features` filters, the last four times as many. Args: see
    `ResidualBlock`, and

        stride_in: the convolution that has the stride: "3x3" as in the libraries of the field ("version 1.5", a
            little more accurate and more work), or "1x1", the first one, as in the paper.
    """

    expansion = 4

    def __init__(
        self,
        in_features: int,
        features: int,
        *,
        stride: int = 1,
        stride_in: StrideIn = "3x3",
        skip: bool = True,
        shortcut: Shortcut = "B",
        squeeze_excite: bool = False,
        stochastic_depth: float = 0.0,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        if stride_in not in ("3x3", "1x1"):
            raise ValueError(f"Expected stride_in to be 3x3 or 1x1, got {stride_in!r}; do choose one of the two.")
        self.stride_in = stride_in
        super().__init__(
            in_features,
            features,
            stride=stride,
            skip=skip,
            shortcut=shortcut,
            squeeze_excite=squeeze_excite,
            stochastic_depth=stochastic_depth,
            dtype=dtype,
            rngs=rngs,
        )

    def _build_residual(self, in_features: int, features: int, conv: partial[Conv], norm: partial[BatchNorm]) -> None:
        first, second = (1, self.stride) if self.stride_in == "3x3" else (self.stride, 1)
        self.conv1 = conv(in_features, features, 1, first)
        self.bn1 = norm(features)
        self.conv2 = conv(features, features, 3, second, padding=1)
        self.bn2 = norm(features)
        self.conv3 = conv(features, self.out_features, 1)
        self.bn3 = norm(self.out_features)

    def residual(self, images: jax.Array) -> jax.Array:
        """Return the residual branch, `[batch, h', w', 4 * features]`."""
        x = nnx.relu(self.bn1(self.conv1(images)))
        x = nnx.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))
