"""The LeNet-style network of the thesis (LeCun 1998 in outline, ReLU and max pooling inside)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from flax.typing import Dtype, Initializer
from jax import numpy as jnp

from cnnlab.layers import Conv

from .registry import register_model

_KERNEL, _POOL = 5, 2


class LeNet(nnx.Module):
    """Two 5x5 convolutions, each with ReLU and 2x2 max pooling, then fully connected layers with ReLU.

    Source: M. N. Careddu, "Convolutional Neural Network: studio e applicazione in Julia", chapter 3. Its
    text names "four layers with 400, 120, 256, 84 neurons"; the code of the network is lost. Read
    literally these are four hidden layers (`hidden=(400, 120, 256, 84)`, 264,806 parameters); read as the
    listing of a LeNet, 400 is the size of the flattened feature map (16 x 5 x 5) and three layers
    follow (`hidden=(120, 256, 84)`, 104,406 parameters).

    Args:
        num_classes: outputs; 0 leaves out the last layer, so that the network returns features.
        hidden: widths of the hidden fully connected layers.
        filters: number of filters of the two convolutions.
        in_channels: channels of the images.
        image_size: height and width of the images in pixels, at least 16.
        kernel_init: initial weights of all layers; Glorot uniform, as Flux has it. Biases start at zero.
        dtype: computation type; None keeps that of the inputs and parameters.
        rngs: source of the initial weights.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        hidden: Sequence[int] = (400, 120, 256, 84),
        filters: Sequence[int] = (6, 16),
        in_channels: int = 3,
        image_size: int = 32,
        kernel_init: Initializer | None = None,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        if image_size < 16:
            raise ValueError(f"Expected images of at least 16 pixels for lenet, got {image_size}; do resize them.")
        if len(filters) != 2:
            raise ValueError(f"Expected two numbers of filters, got filters={filters!r}.")
        for name, numbers in (("hidden", hidden), ("filters", filters)):
            if min(numbers, default=1) < 1:
                raise ValueError(f"Expected {name} of at least 1 each, got {name}={numbers!r}; do choose larger ones.")
        init = nnx.initializers.glorot_uniform() if kernel_init is None else kernel_init
        options: dict[str, Any] = dict(kernel_init=init, dtype=dtype, rngs=rngs)
        self.conv1 = Conv(in_channels, filters[0], _KERNEL, padding="VALID", **options)
        self.conv2 = Conv(filters[0], filters[1], _KERNEL, padding="VALID", **options)
        side = ((image_size - _KERNEL + 1) // _POOL - _KERNEL + 1) // _POOL
        widths = [side * side * filters[1], *hidden]
        self.hidden = nnx.List([nnx.Linear(a, b, **options) for a, b in zip(widths[:-1], widths[1:], strict=True)])
        self.head = nnx.Linear(widths[-1], num_classes, **options) if num_classes else None

    def features(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to the last hidden layer, `[batch, hidden[-1]]`."""
        # ReLU and maximum commute, in value and gradient; in this order ReLU sees a quarter of the numbers.
        x = nnx.relu(self.conv1.max_pooled(images, _POOL))
        x = nnx.relu(self.conv2.max_pooled(x, _POOL))
        x = x.reshape(x.shape[0], -1)  # [b, side * side * filters]
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return x

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        x = self.features(images)
        return x if self.head is None else self.head(x)


_INITIALIZERS = {
    "glorot_uniform": nnx.initializers.glorot_uniform,
    "lecun_normal": nnx.initializers.lecun_normal,
    "he_normal": nnx.initializers.he_normal,
}


class SoftmaxTwice(nnx.Module):
    """A network whose outputs are probabilities that the loss then takes for logits.

    The thesis ends its network in softmax and imports the cross entropy of logits: if both were used
    together, softmax acted twice. Kept to measure what that would have done.
    """

    def __init__(self, network: nnx.Module):
        self.network = network

    def features(self, images: jax.Array) -> jax.Array:
        """Return the features of the network inside, `[batch, features]`."""
        return self.network.features(images)  # pyright: ignore[reportAttributeAccessIssue]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to probabilities `[batch, num_classes]`."""
        return nnx.softmax(self.network(images))


@register_model(paper="M. N. Careddu, 'Convolutional Neural Network: studio e applicazione in Julia'")
def lenet(
    num_classes: int = 10,
    *,
    hidden: Sequence[int] = (400, 120, 256, 84),
    filters: Sequence[int] = (6, 16),
    in_channels: int = 3,
    image_size: int = 32,
    init: str = "glorot_uniform",
    softmax_output: bool = False,
    dtype: Dtype | None = None,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """The thesis' LeNet-style network: two 5x5 convolutions with max pooling, then dense layers."""
    if init not in _INITIALIZERS:
        raise ValueError(f"Expected init to be one of {', '.join(_INITIALIZERS)}, got {init!r}.")
    network = LeNet(
        num_classes,
        hidden=tuple(hidden),
        filters=tuple(filters),
        in_channels=in_channels,
        image_size=image_size,
        kernel_init=_INITIALIZERS[init](),
        dtype=jnp.dtype(dtype) if dtype is not None else None,
        rngs=rngs,
    )
    return SoftmaxTwice(network) if softmax_output else network
