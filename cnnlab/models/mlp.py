"""A feed-forward network over flattened images."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from flax import nnx
from flax.typing import Dtype

from cnnlab.layers import FeedForward

from .image_side import expect_side
from .registry import register_model


class MLP(FeedForward):
    """`cnnlab.layers.FeedForward` over flattened images: `[batch, h, w, c]` to logits `[batch, num_classes]`.

    It knows nothing of neighbouring pixels: what convolutional networks are compared with.

    Args:
        num_classes: outputs; 0 leaves out the last layer, so that the network returns features.
        hidden: widths of the hidden layers, from the image on.
        activation: "relu", "tanh", "sigmoid" or "linear".
        in_channels: channels of the images.
        image_size: height and width of the images in pixels.
        dtype: computation type; None keeps that of the inputs and parameters.
        rngs: source of the initial weights.

    Raises:
        ValueError: an unknown activation; when called, images of another size.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        hidden: Sequence[int] = (512, 512),
        activation: str = "relu",
        in_channels: int = 3,
        image_size: int = 32,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        pixels = image_size * image_size * in_channels
        super().__init__(pixels, hidden, num_classes, activation=activation, dtype=dtype, rngs=rngs)
        self.image_size = image_size

    def features(self, inputs: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to the last hidden layer, `[batch, hidden[-1]]`."""
        expect_side(inputs, self.image_size)
        return super().features(inputs.reshape(inputs.shape[0], -1))  # [b, h * w * c]


@register_model
def mlp(
    num_classes: int = 10,
    *,
    hidden: Sequence[int] = (512, 512),
    activation: str = "relu",
    in_channels: int = 3,
    image_size: int = 32,
    dtype: Dtype | None = None,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Feed-forward network over flattened images: fully connected layers of any number and width."""
    return MLP(
        num_classes,
        hidden=tuple(hidden),
        activation=activation,
        in_channels=in_channels,
        image_size=image_size,
        dtype=dtype,
        rngs=rngs,
    )
