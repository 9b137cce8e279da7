"""VGG networks (Simonyan and Zisserman 2014), with and without batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from cnnlab.layers import BatchNorm, Conv, Dropout, adaptive_avg_pool, global_avg_pool, max_pool

from .image_side import expect_at_least, warn_below_imagenet
from .registry import Builder, register_model

Classifier = Literal["imagenet", "cifar"]

_WIDTHS = (64, 128, 256, 512, 512)
_GRID = 7  # side of the feature map before the dense layers, for 224 pixels
_PAPER = (
    "Simonyan and Zisserman 2014, 'Very Deep Convolutional Networks for Large-Scale Image Recognition', arXiv:1409.1556"
)

_of_convs = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
_of_dense_layers = nnx.initializers.normal(0.01)


class VGG(nnx.Module):
    """Stages of 3x3 convolutions, then dense layers: `[batch, h, w, c]` to logits `[batch, num_classes]`.

    Every convolution is followed by BatchNorm (where that is on) and ReLU, every stage by 2x2 max pooling. Convolutions
    have biases, with BatchNorm too, as the field's libraries have it. Their weights start He normal (fan out), those of
    dense layers normal with standard deviation 0.01, all biases at zero.

    Args:
        depths: convolutions of each stage.
        num_classes: outputs; 0 leaves out the last layer, so that the network returns features.
        widths: filters of each stage.
        hidden: widths of the hidden dense layers of the "imagenet" classifier.
        batch_norm: whether BatchNorm follows each convolution.
        classifier: "imagenet" averages the last feature map to a grid of 7 x 7, flattens it and has hidden dense layers
            with dropout after each; "cifar" averages it to one number per channel and has none.
        dropout: probability to drop, at what the hidden dense layers yield; with "cifar", at the means.
        in_channels: channels of the images.
        dtype: computation type; None keeps that of the inputs and parameters.
        rngs: source of the initial weights and of the drops.

    Raises:
        ValueError: an unknown classifier, numbers of stages that differ, or a rate of dropout outside [0, 1); when
            called, images that leave nothing after the last pooling.
    """

    def __init__(
        self,
        depths: Sequence[int],
        num_classes: int = 10,
        *,
        widths: Sequence[int] = _WIDTHS,
        hidden: Sequence[int] = (4096, 4096),
        batch_norm: bool = False,
        classifier: Classifier = "imagenet",
        dropout: float = 0.5,
        in_channels: int = 3,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        if classifier not in ("imagenet", "cifar"):
            raise ValueError(f"Expected classifier to be imagenet or cifar, got {classifier!r}; do choose one.")
        if len(depths) != len(widths):
            raise ValueError(f"Expected one width for each of {len(depths)} stages, got {widths!r}; do match them.")
        options: dict[str, Any] = dict(dtype=None if dtype is None else jnp.dtype(dtype), rngs=rngs)
        self.depths, self.classifier = tuple(depths), classifier

        self.convs, self.norms = nnx.List(), nnx.List()
        channels = in_channels
        for depth, width in zip(depths, widths, strict=True):
            for _ in range(depth):
                self.convs.append(Conv(channels, width, 3, padding=1, kernel_init=_of_convs, **options))
                if batch_norm:
                    self.norms.append(BatchNorm(width, **options))
                channels = width
        options["kernel_init"] = _of_dense_layers
        shape = [_GRID * _GRID * channels, *hidden] if classifier == "imagenet" else [channels]
        self.hidden = nnx.List([nnx.Linear(a, b, **options) for a, b in zip(shape[:-1], shape[1:], strict=True)])
        self.dropout = Dropout(dropout, rngs=rngs)
        self.head = nnx.Linear(shape[-1], num_classes, **options) if num_classes else None

    def features(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to the last hidden layer, or the means per channel.

        Warns when the ImageNet classifier meets an image below 64 pixels.
        """
        expect_at_least(min(images.shape[1:3]), 2 ** len(self.depths), "VGG, which halves them once a stage")
        if self.classifier == "imagenet":
            part = f"the ImageNet classifier, which spreads their last map over {_GRID} x {_GRID}"
            warn_below_imagenet(images, part, "build the network with classifier='cifar'")
        x, index = images, 0
        for depth in self.depths:
            for _ in range(depth):
                x = self.convs[index](x)
                x = nnx.relu(self.norms[index](x) if self.norms else x)
                index += 1
            x = max_pool(x, 2)
        if self.classifier == "cifar":
            return self.dropout(global_avg_pool(x))  # [b, c]
        x = adaptive_avg_pool(x, _GRID)
        x = x.reshape(x.shape[0], -1)  # [b, h * w * c]
        for layer in self.hidden:
            x = self.dropout(nnx.relu(layer(x)))
        return x

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        x = self.features(images)
        return x if self.head is None else self.head(x)


def _vgg(name: str, depths: Sequence[int], *, batch_norm: bool = False) -> Builder:
    def build(
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        classifier: Classifier = "imagenet",
        dropout: float = 0.5,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ) -> nnx.Module:
        return VGG(
            depths,
            num_classes,
            batch_norm=batch_norm,
            classifier=classifier,
            dropout=dropout,
            in_channels=in_channels,
            dtype=dtype,
            rngs=rngs,
        )

    build.__name__ = build.__qualname__ = name
    what = f"VGG of {sum(depths)} convolutions{' with BatchNorm' * batch_norm} and three dense layers."
    build.__doc__ = what
    return register_model(input_size=224, paper=_PAPER, small_images={"classifier": "cifar"})(build)


# Configurations A, B, D and E of the paper's table 1.
vgg11 = _vgg("vgg11", (1, 1, 2, 2, 2))
vgg13 = _vgg("vgg13", (2, 2, 2, 2, 2))
vgg16 = _vgg("vgg16", (2, 2, 3, 3, 3))
vgg19 = _vgg("vgg19", (2, 2, 4, 4, 4))
vgg11_bn = _vgg("vgg11_bn", (1, 1, 2, 2, 2), batch_norm=True)
vgg13_bn = _vgg("vgg13_bn", (2, 2, 2, 2, 2), batch_norm=True)
vgg16_bn = _vgg("vgg16_bn", (2, 2, 3, 3, 3), batch_norm=True)
vgg19_bn = _vgg("vgg19_bn", (2, 2, 4, 4, 4), batch_norm=True)
