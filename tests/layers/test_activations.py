"""Activations by name and the initial weights that suit them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnlab.layers import get_activation, initializer_for

FORMULAS = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": lambda z: (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z)),
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "linear": lambda z: z,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_an_activation_is_its_formula(name: str) -> None:
    z = np.linspace(-4, 4, 17, dtype=np.float32)
    # Float32 against float64, and the error of an exponential of the platform.
    np.testing.assert_allclose(get_activation(name)(jnp.asarray(z)), FORMULAS[name](z.astype(np.float64)), atol=1e-6)


@pytest.mark.parametrize("find", [get_activation, initializer_for])
def test_an_unknown_activation_is_an_error_that_lists_the_known_ones(find) -> None:
    with pytest.raises(
        ValueError, match="Expected activation to be one of relu, tanh, sigmoid, linear, got 'relo'; do"
    ):
        find("relo")


@pytest.mark.parametrize("name", FORMULAS)
def test_a_deep_stack_of_layers_neither_kills_nor_blows_up_the_signal(name: str) -> None:
    f, init = get_activation(name), initializer_for(name)
    x = jax.random.normal(jax.random.key(0), (50, 128))
    for key in jax.random.split(jax.random.key(1), 8):
        x = f(x @ init(key, (128, 128), jnp.float32))
    # What still differs between cases after eight layers; Glorot's own width would leave 4**-8 of it under sigmoid.
    assert 0.005 < float(x.std(axis=0).mean()) < 5


@pytest.mark.parametrize(
    ("name", "variance"), [("relu", 2 / 300), ("tanh", 2 / 500), ("linear", 2 / 500), ("sigmoid", 16 * 2 / 500)]
)
def test_the_initial_weights_have_the_spread_that_suits_the_activation(name: str, variance: float) -> None:
    # He: 2 / fan_in; Glorot: 2 / (fan_in + fan_out), four times as wide for sigmoid.
    weights = np.asarray(initializer_for(name)(jax.random.key(0), (300, 200), jnp.float32))
    # The estimate of a std from n draws, within 5 of its standard errors, at most sqrt(0.5 / n).
    assert abs(weights.std() / np.sqrt(variance) - 1) < 5 * np.sqrt(0.5 / weights.size)
