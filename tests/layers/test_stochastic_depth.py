"""Stochastic depth: whole images, the right share of them, the right expectation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.layers import StochasticDepth

# Standard errors of a share that a test allows; the seed is fixed, so that it passes always or never.
DEVIATIONS = 3


def images(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).uniform(1, 2, shape), jnp.float32)


def test_an_image_is_dropped_as_a_whole_or_kept_as_a_whole() -> None:
    x = images(64, 3, 4, 2)
    y = np.asarray(StochasticDepth(0.25, rngs=nnx.Rngs(0))(x))
    dropped = (y == 0).all((1, 2, 3))
    assert 0 < dropped.sum() < 64
    np.testing.assert_array_equal(y[~dropped], (x / 0.75)[~dropped])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_of_dropped_images_is_the_rate_and_the_expectation_the_input(rate: float) -> None:
    count = 20_000
    y = np.asarray(StochasticDepth(rate, rngs=nnx.Rngs(1))(jnp.ones((count, 1, 1, 1))))
    error = DEVIATIONS * np.sqrt(rate * (1 - rate) / count)
    assert abs((y == 0).mean() - rate) < error
    assert abs(y.mean() - 1) < error / (1 - rate)


def test_every_call_drops_other_images() -> None:
    layer, x = StochasticDepth(0.5, rngs=nnx.Rngs(0)), images(64, 1, 1, 1)
    assert np.any(layer(x) != layer(x))


def test_in_eval_mode_nothing_is_dropped_or_scaled() -> None:
    layer, x = StochasticDepth(0.5, rngs=nnx.Rngs(0)), images(8, 2, 2, 3)
    layer.eval()
    np.testing.assert_array_equal(layer(x), x)


def test_without_drops_there_is_no_random_state() -> None:
    layer, x = StochasticDepth(0.0, rngs=nnx.Rngs(0)), images(8, 2, 2, 3)
    assert not jax.tree.leaves(nnx.state(layer))
    assert jax.tree.leaves(nnx.state(StochasticDepth(0.1, rngs=nnx.Rngs(0)), nnx.RngState))
    np.testing.assert_array_equal(layer(x), x)


def test_the_type_stays() -> None:
    assert StochasticDepth(0.5, rngs=nnx.Rngs(0))(images(2, 2, 2, 1).astype(jnp.bfloat16)).dtype == jnp.bfloat16


@pytest.mark.parametrize("rate", [-0.1, 1.0, 1.5, float("nan")])
def test_a_rate_outside_zero_to_one_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"Expected a drop rate in \[0, 1\), got .*; do choose"):
        StochasticDepth(rate, rngs=nnx.Rngs(0))
