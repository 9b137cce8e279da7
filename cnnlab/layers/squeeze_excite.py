"""Squeeze and excitation: channels weighted by what the whole image shows."""

from __future__ import annotations

import jax
from flax import nnx
from flax.typing import Dtype

from .pooling import global_avg_pool


class SqueezeExcite(nnx.Module):
    """Weigh the channels of each image: `[batch, h, w, features]` to the same shape.

        y = x * sigmoid(expand(relu(reduce(mean of x over all pixels))))

    `reduce` and `expand` are dense layers with biases, from `features` to `features / reduction` and back: the
    bottleneck keeps the cost small.

    Source: J. Hu et al., "Squeeze-and-Excitation Networks", 2018, arXiv:1709.01507.

    Args:
        features: channels.
        reduction: divides the width of the hidden layer, which has at least one neuron; 16 in the paper.
        dtype: computation type; None keeps that of the inputs and parameters.
        rngs: source of the initial weights.
    """

    def __init__(self, features: int, *, reduction: int = 16, dtype: Dtype | None = None, rngs: nnx.Rngs):
        hidden = max(features // reduction, 1)
        he_normal = nnx.initializers.he_normal()
        self.reduce = nnx.Linear(features, hidden, kernel_init=he_normal, dtype=dtype, rngs=rngs)
        self.expand = nnx.Linear(hidden, features, dtype=dtype, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[batch, h, w, features]` to the same shape."""
        hidden = nnx.relu(self.reduce(global_avg_pool(images)))  # [b, hidden]
        weights = nnx.sigmoid(self.expand(hidden))  # [b, features]
        return images * weights[:, None, None, :]
