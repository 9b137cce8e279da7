"""Activation functions by name, and the initial weights that suit them."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Initializer

Activation = Callable[[jax.Array], jax.Array]


def _linear(x: jax.Array) -> jax.Array:
    """The identity: layers without a non-linearity between them are one linear layer."""
    return x


_ACTIVATIONS: dict[str, Activation] = {
    "relu": nnx.relu,
    "tanh": jnp.tanh,
    "sigmoid": nnx.sigmoid,
    "linear": _linear,
}


def get_activation(name: str) -> Activation:
    """Return the activation function called `name`, which acts on each number by itself and never decreases.

    Args:
        name: "relu", "tanh", "sigmoid" or "linear" (the identity).

    Raises:
        ValueError: another name.

    Example:
        >>> get_activation("relu")(jnp.array([-1.0, 2.0])).tolist()
        [0.0, 2.0]
    """
    if name not in _ACTIVATIONS:
        raise ValueError(f"Expected activation to be one of {', '.join(_ACTIVATIONS)}, got {name!r}; do choose one.")
    return _ACTIVATIONS[name]


def initializer_for(activation: str) -> Initializer:
    """Return the initial weights under which a signal neither fades nor grows much from layer to layer.

    He normal for "relu", which loses half of its input (He et al. 2015, arXiv:1502.01852). Glorot uniform for "tanh"
    and "linear", whose slope at zero is one (Glorot and Bengio 2010), and four times as wide for "sigmoid", whose
    slope there is a quarter.

    Args:
        activation: a name that `get_activation` knows.

    Raises:
        ValueError: another name.
    """
    get_activation(activation)
    if activation == "relu":
        return nnx.initializers.he_normal()
    width = 4 if activation == "sigmoid" else 1
    return nnx.initializers.variance_scaling(width**2, "fan_avg", "uniform")
