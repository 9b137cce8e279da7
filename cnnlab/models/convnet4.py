"""A four-layer network for the comparison of ReLU and tanh (Krizhevsky et al. 2012, figure 1)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from cnnlab.layers import Conv, avg_pool, get_activation, initializer_for, max_pool

from .image_side import expect_at_least, expect_side
from .registry import register_model

_FILTERS, _KERNEL = (32, 32, 64), 5
_WINDOW, _STRIDE = (3, 3), (2, 2)
_PADS = ((0, 1), (0, 1))  # the last window may reach one pixel beyond the map, which so halves: grids round up
_INITS = ("scaled", "cuda_convnet")
# Standard deviations in cuda-convnet, whose pixels run from 0 to 255; ours run from 0 to 1.
_CUDA_CONVNET = (0.0001 * 255, 0.01, 0.01, 0.01)


class ConvNet4(nnx.Module):
    """Three 5x5 convolutions and one dense layer: `[batch, h, w, c]` to logits `[batch, num_classes]`.

    The paper's figure shows a network of four layers on CIFAR-10, and the paper says no more of it. This is the nearest
    that its author has published, `layers-18pct` of his program cuda-convnet, without that network's response
    normalisation, since the figure's networks were not regularised in any way. 32, 32 and 64 filters; a map of n pixels
    is pooled to n // 2 by overlapping 3x3 windows of stride 2, by maximum after the first convolution and by mean (of
    the pixels that exist) after the others. 89,578 parameters for 32-pixel images of three channels and ten classes.

    Args:
        num_classes: outputs; 0 leaves out the last layer, so that the network returns features.
        activation: "relu", "tanh", "sigmoid" or "linear".
        init: "scaled" starts from weights that suit the activation (`cnnlab.layers.initializer_for`: He normal for
            "relu", Glorot uniform for "tanh"), "cuda_convnet" from normal ones with the program's small standard
            deviations. Biases start at zero.
        in_channels: channels of the images.
        image_size: height and width of the images in pixels, at least 8.
        dtype: computation type; None keeps that of the inputs and parameters.
        rngs: source of the initial weights.

    Raises:
        ValueError: an unknown activation or init, or an image size below 8; when called, images of another size.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        activation: str = "relu",
        init: str = "scaled",
        in_channels: int = 3,
        image_size: int = 32,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        if init not in _INITS:
            raise ValueError(f"Expected init to be one of {', '.join(_INITS)}, got {init!r}; do choose one.")
        expect_at_least(image_size, 2 ** len(_FILTERS), "convnet4")
        self.activation, self.image_size = get_activation(activation), image_size
        if init == "scaled":
            inits = [initializer_for(activation)] * 4
        else:
            inits = [nnx.initializers.normal(std) for std in _CUDA_CONVNET]
        options: dict[str, Any] = dict(dtype=None if dtype is None else jnp.dtype(dtype), rngs=rngs)
        channels = [in_channels, *_FILTERS]
        self.convs = nnx.List(
            [
                Conv(a, b, _KERNEL, padding=_KERNEL // 2, kernel_init=kernel_init, **options)
                for a, b, kernel_init in zip(channels[:-1], channels[1:], inits[:-1], strict=True)
            ]
        )
        side = image_size // 2 ** len(_FILTERS)
        flat = side * side * _FILTERS[-1]
        self.head = nnx.Linear(flat, num_classes, kernel_init=inits[-1], **options) if num_classes else None

    def features(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to the last feature map, flattened: `[batch, features]`."""
        expect_side(images, self.image_size)
        first, *others = self.convs
        # Maximum and activation commute, since no activation decreases; in this order it sees a quarter of the numbers.
        x = self.activation(max_pool(first(images), _WINDOW, _STRIDE, _PADS))
        for conv in others:
            x = avg_pool(self.activation(conv(x)), _WINDOW, _STRIDE, _PADS, count_include_pad=False)
        return x.reshape(x.shape[0], -1)  # [b, h * w * c]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        x = self.features(images)
        return x if self.head is None else self.head(x)


@register_model(paper="Krizhevsky et al. 2012, figure 1; cuda-convnet, example-layers/layers-18pct.cfg")
def convnet4(
    num_classes: int = 10,
    *,
    activation: str = "relu",
    init: str = "scaled",
    in_channels: int = 3,
    image_size: int = 32,
    dtype: Dtype | None = None,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Three 5x5 convolutions and one dense layer, for the comparison of ReLU and tanh."""
    return ConvNet4(
        num_classes,
        activation=activation,
        init=init,
        in_channels=in_channels,
        image_size=image_size,
        dtype=dtype,
        rngs=rngs,
    )
