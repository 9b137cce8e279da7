"""The first building blocks: perceptron, sigmoid neuron, and the feed-forward network made of layers of neurons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype, Initializer

from .activations import get_activation, initializer_for


class _Neuron(nnx.Module):
    """One weight per input and a bias: `[..., in_features]` to the weighted sums `[...]`."""

    def __init__(
        self,
        in_features: int,
        *,
        weights: Sequence[float] | None = None,
        bias: float = 0.0,
        rngs: nnx.Rngs | None = None,
    ):
        if weights is not None:
            if len(weights) != in_features:
                raise ValueError(f"Expected {in_features} weights, one per input, got {len(weights)}; do match them.")
            values = jnp.asarray(weights, jnp.float32)
        elif rngs is not None:
            values = nnx.initializers.normal(1.0)(rngs.params(), (in_features,), jnp.float32)
        else:
            raise ValueError("Expected weights or rngs, got neither; do give one number per input, or nnx.Rngs(0).")
        self.weights = nnx.Param(values)
        self.bias = nnx.Param(jnp.asarray(bias, jnp.float32))

    def weighted_sum(self, inputs: jax.Array) -> jax.Array:
        """Return `inputs @ weights + bias`, `[..., in_features]` to `[...]`."""
        return _weighted_sum(self.weights[...], self.bias[...], inputs)


class Perceptron(_Neuron):
    """Rosenblatt's neuron: `[..., in_features]` to `[...]`, 1 where the weighted sum is positive and 0 elsewhere.

        y = 1 if w . x + b > 0 else 0

    The bias is the negative threshold. Its step has no useful gradient; `perceptron_update` is how it learns.

    Source: F. Rosenblatt, "The perceptron: a probabilistic model for information storage and organization in the
    brain", 1958.

    Args:
        in_features: inputs.
        weights: one number per input; by default drawn from a standard normal distribution.
        bias: the negative threshold.
        rngs: source of the weights where none are given.

    Raises:
        ValueError: neither weights nor rngs, or weights that do not match the inputs.

    Example:
        >>> nand = Perceptron(2, weights=(-2, -2), bias=3)
        >>> nand(jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]])).tolist()
        [1.0, 1.0, 0.0]
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map `[..., in_features]` to zeros and ones, `[...]`."""
        return _step(self.weighted_sum(inputs))


class SigmoidNeuron(_Neuron):
    """A smoothed perceptron: `[..., in_features]` to numbers between 0 and 1, `[...]`.

        y = 1 / (1 + exp(-(w . x + b)))

    A small change of a weight changes the output a little, so that it can learn by gradients.

    Args:
        in_features: inputs.
        weights: one number per input; by default drawn from a standard normal distribution.
        bias: number added to the weighted inputs.
        rngs: source of the weights where none are given.

    Raises:
        ValueError: neither weights nor rngs, or weights that do not match the inputs.
    """

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map `[..., in_features]` to numbers between 0 and 1, `[...]`."""
        return nnx.sigmoid(self.weighted_sum(inputs))


def perceptron_update(
    weights: jax.Array, bias: jax.Array, inputs: jax.Array, target: jax.Array, learning_rate: float = 1.0
) -> tuple[jax.Array, jax.Array]:
    """Return the weights and bias of a perceptron after it has seen one case (Rosenblatt's rule).

        w <- w + r (t - y) x,    b <- b + r (t - y)

    Nothing changes where the output y equals the target t. If some perceptron answers every case rightly, going round
    the cases finds one after finitely many changes (Novikoff 1962); if none does, as for XOR, it never settles.

    Args:
        weights: `[in_features]`.
        bias: one number.
        inputs: one case, `[in_features]`.
        target: its answer, 0 or 1.
        learning_rate: r.

    Returns:
        New weights and bias.
    """
    error = learning_rate * (target - _step(_weighted_sum(weights, bias, inputs)))
    return weights + error * inputs, bias + error


class FeedForward(nnx.Module):
    """A feed-forward network: fully connected layers, `[batch, in_features]` to `[batch, out_features]`.

    Its depth is the number of hidden layers, its width theirs. Every hidden layer ends in the activation, the last
    layer in none. With the activation "linear" the whole is one linear map, however deep it is.

    Args:
        in_features: numbers per case.
        hidden: widths of the hidden layers, from the input on; none for a linear model.
        out_features: outputs; 0 leaves out the last layer, so that the network returns features.
        activation: "relu", "tanh", "sigmoid" or "linear".
        kernel_init: initial weights; by default those that suit the activation (`initializer_for`). Biases start at
            zero.
        dtype: computation type; None keeps that of the inputs and parameters.
        rngs: source of the initial weights.

    Raises:
        ValueError: an unknown activation.
    """

    def __init__(
        self,
        in_features: int,
        hidden: Sequence[int],
        out_features: int,
        *,
        activation: str = "relu",
        kernel_init: Initializer | None = None,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        self.activation = get_activation(activation)
        init = initializer_for(activation) if kernel_init is None else kernel_init
        options: dict[str, Any] = dict(kernel_init=init, dtype=None if dtype is None else jnp.dtype(dtype), rngs=rngs)
        widths = [in_features, *hidden]
        self.hidden = nnx.List([nnx.Linear(a, b, **options) for a, b in zip(widths[:-1], widths[1:], strict=True)])
        self.head = nnx.Linear(widths[-1], out_features, **options) if out_features else None

    def features(self, inputs: jax.Array) -> jax.Array:
        """Map `[batch, in_features]` to the last hidden layer, `[batch, hidden[-1]]`; without any, to itself."""
        x = inputs
        for layer in self.hidden:
            x = self.activation(layer(x))
        return x

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map `[batch, in_features]` to `[batch, out_features]`."""
        x = self.features(inputs)
        return x if self.head is None else self.head(x)


def _weighted_sum(weights: jax.Array, bias: jax.Array, inputs: jax.Array) -> jax.Array:
    return inputs @ weights + bias


def _step(x: jax.Array) -> jax.Array:
    return (x > 0).astype(x.dtype)
