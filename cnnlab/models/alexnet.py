"""AlexNet (Krizhevsky et al. 2012), its single-tower successor and a version for 32-pixel images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype, Initializer

from cnnlab.layers import (
    Conv,
    Dropout,
    adaptive_avg_pool,
    get_activation,
    initializer_for,
    local_response_norm,
    max_pool,
)

from .image_side import expect_at_least, expect_side
from .registry import register_model

_NORMALIZED, _POOLED = (0, 1), (0, 1, 4)  # the convolutions that these stages follow, counted from zero
_WINDOW, _STRIDE = 3, 2  # pooling windows overlap
_GRID = 6  # side of the feature map before the dense layers of the 2012 network
_SMALL_SIDE = 32  # what alexnet_cifar is made for
# How the weights of 2012 start, and the largest of its pixels; ours run from 0 to 1.
_STD, _LARGEST_PIXEL = 0.01, 255

_PAPER = "Krizhevsky et al. 2012, 'ImageNet Classification with Deep Convolutional Neural Networks'"
_WEIRD = "Krizhevsky 2014, 'One weird trick for parallelizing convolutional neural networks', arXiv:1404.5997"


class Convolution(NamedTuple):
    """One of AlexNet's convolutions.

    Attributes:
        filters: number of filters.
        kernel: side of a filter.
        stride: step of the window.
        padding: zeros before and after each row and column.
        groups: towers: filters of one see only the channels of the same one.
        bias: what the biases start from.
    """

    filters: int
    kernel: int
    stride: int = 1
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    bias: float = 0.0


class AlexNet(nnx.Module):
    """Five convolutions and two hidden dense layers, `[batch, h, w, c]` to logits `[batch, num_classes]`.

    Each convolution is followed by the activation; the first two then by local response normalisation, where that is
    on; the first, second and fifth then by max pooling in 3x3 windows with stride 2, which overlap.

    Args:
        convolutions: the five of them.
        num_classes: outputs; 0 leaves out the last layer, so that the network returns features.
        hidden: widths of the hidden dense layers.
        in_channels: channels of the images.
        image_size: height and width of the images in pixels. None: any; what the convolutions yield is averaged to a
            grid of 6 x 6 then.
        activation: "relu", "tanh", "sigmoid" or "linear".
        local_response_norm: whether the first two convolutions are followed by it.
        dropout: probability to drop, at the hidden dense layers.
        dropout_before: whether dropout acts on the inputs of the hidden dense layers, and not on their outputs.
        kernel_init: initial weights; by default those that suit the activation (`cnnlab.layers.initializer_for`).
        first_kernel_init: those of the first convolution; by default as the others.
        hidden_bias: what the biases of the hidden dense layers start from.
        dtype: computation type; None keeps that of the inputs and parameters.
        rngs: source of the initial weights and of the drops.

    Raises:
        ValueError: an image size that leaves nothing after the last pooling, an unknown activation, or a rate of
            dropout outside [0, 1); when called, images of another size.
    """

    def __init__(
        self,
        convolutions: Sequence[Convolution],
        num_classes: int = 10,
        *,
        hidden: Sequence[int] = (4096, 4096),
        in_channels: int = 3,
        image_size: int | None = None,
        activation: str = "relu",
        local_response_norm: bool = False,
        dropout: float = 0.5,
        dropout_before: bool = False,
        kernel_init: Initializer | None = None,
        first_kernel_init: Initializer | None = None,
        hidden_bias: float = 0.0,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.activation, self.image_size = get_activation(activation), image_size
        self.normalized, self.dropout_before = local_response_norm, dropout_before
        self.smallest = next(side for side in itertools.count(1) if _map_side(convolutions, side) > 0)
        if image_size is not None:
            self._expect_large_enough(image_size)
        init = initializer_for(activation) if kernel_init is None else kernel_init
        options: dict[str, Any] = dict(kernel_init=init, dtype=None if dtype is None else jnp.dtype(dtype), rngs=rngs)

        self.convs = nnx.List()
        channels = in_channels
        for layer in convolutions:
            first = not self.convs and first_kernel_init is not None
            self.convs.append(
                Conv(
                    channels,
                    layer.filters,
                    layer.kernel,
                    layer.stride,
                    padding=(layer.padding, layer.padding),
                    feature_group_count=layer.groups,
                    bias_init=nnx.initializers.constant(layer.bias),
                    **({**options, "kernel_init": first_kernel_init} if first else options),
                )
            )
            channels = layer.filters
        side = _GRID if image_size is None else _map_side(convolutions, image_size)
        widths, bias = [side * side * channels, *hidden], nnx.initializers.constant(hidden_bias)
        self.hidden = nnx.List(
            [nnx.Linear(a, b, bias_init=bias, **options) for a, b in zip(widths[:-1], widths[1:], strict=True)]
        )
        self.dropout = Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(widths[-1], num_classes, **options) if num_classes else None

    def features(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to the last hidden layer, `[batch, hidden[-1]]`."""
        if self.image_size is None:
            self._expect_large_enough(min(images.shape[1:3]))
        else:
            expect_side(images, self.image_size)
        x = images
        for index, conv in enumerate(self.convs):
            x = self.activation(conv(x))
            if self.normalized and index in _NORMALIZED:
                x = local_response_norm(x)
            if index in _POOLED:
                x = max_pool(x, _WINDOW, _STRIDE)
        if self.image_size is None:
            x = adaptive_avg_pool(x, _GRID)
        x = x.reshape(x.shape[0], -1)  # [b, h * w * c]
        for layer in self.hidden:
            if self.dropout_before:
                x = self.activation(layer(self.dropout(x)))
            else:
                x = self.dropout(self.activation(layer(x)))
        return x

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        x = self.features(images)
        return x if self.head is None else self.head(x)

    def _expect_large_enough(self, side: int) -> None:
        small = self.smallest > _SMALL_SIDE
        remedy = f"resize them, or use alexnet_cifar for {_SMALL_SIDE} pixels" if small else "resize them"
        expect_at_least(side, self.smallest, "this AlexNet", remedy)


def _map_side(convolutions: Sequence[Convolution], side: int) -> int:
    """Height and width of the last feature map for images of `side` pixels; not positive for images too small."""
    for index, layer in enumerate(convolutions):
        side = (side + sum(layer.padding) - layer.kernel) // layer.stride + 1
        if index in _POOLED:
            side = (side - _WINDOW) // _STRIDE + 1
    return side


# The last window of a row reaches up to 3 pixels beyond the image, as in the authors' program cuda-convnet, whose grids
# round up: 55 x 55 windows both for the paper's 224 pixels and for 227, where no window meets the zeros.
_TWO_TOWERS = (
    Convolution(96, 11, stride=4, padding=(0, 3)),
    Convolution(256, 5, padding=(2, 2), groups=2, bias=1.0),
    Convolution(384, 3, padding=(1, 1)),
    Convolution(384, 3, padding=(1, 1), groups=2, bias=1.0),
    Convolution(256, 3, padding=(1, 1), groups=2, bias=1.0),
)
_ONE_TOWER = (
    Convolution(64, 11, stride=4, padding=(2, 2)),
    Convolution(192, 5, padding=(2, 2)),
    Convolution(384, 3, padding=(1, 1)),
    Convolution(256, 3, padding=(1, 1)),
    Convolution(256, 3, padding=(1, 1)),
)
_SMALL = (
    Convolution(48, 5, padding=(2, 2)),
    Convolution(128, 5, padding=(2, 2)),
    Convolution(192, 3, padding=(1, 1)),
    Convolution(192, 3, padding=(1, 1)),
    Convolution(128, 3, padding=(1, 1)),
)


@register_model(input_size=224, paper=_PAPER)
def alexnet(
    num_classes: int = 10,
    *,
    in_channels: int = 3,
    image_size: int = 224,
    activation: str = "relu",
    local_response_norm: bool = True,
    dropout: float = 0.5,
    dtype: Dtype | None = None,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """AlexNet of 2012: two towers (convolutions 2, 4 and 5 in two groups), local response normalisation, dropout.

    60,965,224 parameters with 1000 classes. Weights start normal with standard deviation 0.01, the biases of
    convolutions 2, 4 and 5 and of the hidden dense layers at one, the others at zero. The paper's pixels run to 255,
    ours from 0 to 1: the first convolution's weights start 255 times as large, so that a fresh network is the
    paper's. With 0.01 there its logits would hardly depend on the image. The equality is that of the start: the
    same rate moves those weights by a share 255 * 255 times smaller than the paper's.
    """
    return AlexNet(
        _TWO_TOWERS,
        num_classes,
        in_channels=in_channels,
        image_size=image_size,
        activation=activation,
        local_response_norm=local_response_norm,
        dropout=dropout,
        kernel_init=nnx.initializers.normal(_STD),
        first_kernel_init=nnx.initializers.normal(_STD * _LARGEST_PIXEL),
        hidden_bias=1.0,
        dtype=dtype,
        rngs=rngs,
    )


@register_model(input_size=224, paper=_WEIRD)
def alexnet_single(
    num_classes: int = 10,
    *,
    in_channels: int = 3,
    activation: str = "relu",
    dropout: float = 0.5,
    dtype: Dtype | None = None,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """AlexNet as the field's libraries have it: one tower, no local response normalisation, any image size.

    61,100,840 parameters with 1000 classes. The feature map is averaged to 6 x 6, so that images of 63 pixels or more
    will do, and dropout acts before the hidden dense layers. Weights start as suits the
    activation (He normal for "relu"), biases at zero.
    """
    return AlexNet(
        _ONE_TOWER,
        num_classes,
        in_channels=in_channels,
        activation=activation,
        dropout=dropout,
        dropout_before=True,
        dtype=dtype,
        rngs=rngs,
    )


@register_model(paper=_PAPER)
def alexnet_cifar(
    num_classes: int = 10,
    *,
    in_channels: int = 3,
    image_size: int = 32,
    activation: str = "relu",
    local_response_norm: bool = True,
    dropout: float = 0.5,
    dtype: Dtype | None = None,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """AlexNet for 32-pixel images: half the filters, a quarter of the hidden neurons, a first convolution of stride 1.

    48, 128, 192, 192 and 128 filters of 5, 5, 3, 3 and 3 pixels in one tower, pooled from 32 to 15, 7 and 3 pixels, and
    two hidden dense layers of 1024: 3,172,554 parameters with 10 classes. Local response normalisation, overlapping
    pooling and dropout as in 2012. Weights start as suits the activation (He normal for "relu"), biases at zero: under
    the small weights of 2012 the signal fades from layer to layer.

    The constants of the normalisation are the paper's, k = 2 and alpha = 0.0001, which suit activations in the tens and
    hundreds, as pixels up to 255 make them. From pixels in [0, 1] and these weights they are of the order of one:
    there it divides all by 2 ** 0.75 = 1.68 and channels hardly compete, until training makes them larger.
    """
    return AlexNet(
        _SMALL,
        num_classes,
        hidden=(1024, 1024),
        in_channels=in_channels,
        image_size=image_size,
        activation=activation,
        local_response_norm=local_response_norm,
        dropout=dropout,
        dtype=dtype,
        rngs=rngs,
    )
