"""Dropout: how much it drops, when, and that it holds no random state where it drops nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.layers import Dropout


def test_in_train_mode_the_share_is_zero_and_the_rest_is_scaled_up() -> None:
    dropped = np.asarray(Dropout(0.25, rngs=nnx.Rngs(0))(jnp.ones(10_000)))
    np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
    assert abs((dropped == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / dropped.size)  # five standard errors


def test_each_call_draws_anew_and_in_eval_mode_nothing_is_dropped() -> None:
    layer, x = Dropout(0.5, rngs=nnx.Rngs(0)), jnp.ones(100)
    assert np.any(layer(x) != layer(x))
    layer.eval()
    np.testing.assert_array_equal(layer(x), x)


def test_a_rate_of_zero_needs_no_random_state() -> None:
    layer = Dropout(0.0, rngs=nnx.Rngs(0))
    assert jax.tree.leaves(nnx.state(layer)) == []
    np.testing.assert_array_equal(layer(jnp.ones(100)), np.ones(100))
    assert jax.tree.leaves(nnx.state(Dropout(0.1, rngs=nnx.Rngs(0)))) != []


@pytest.mark.parametrize("rate", [-0.1, 1.0, 50])
def test_a_rate_that_is_no_share_is_an_error(rate: float) -> None:
    with pytest.raises(ValueError, match=rf"Expected a dropout rate in \[0, 1\), got {rate}; do choose"):
        Dropout(rate, rngs=nnx.Rngs(0))
