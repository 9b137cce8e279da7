"""Squeeze and excitation against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.layers import SqueezeExcite

# Two float32 formulas, relative to the largest number; some bfloat16 roundings one after the other.
FLOAT32, BFLOAT16 = 1e-5, 2**-6


def layer(features: int, **options) -> SqueezeExcite:
    """A layer in which no bias is zero."""
    module, rng = SqueezeExcite(features, rngs=nnx.Rngs(0), **options), np.random.default_rng(0)
    for dense in (module.reduce, module.expand):
        dense.bias[...] = jnp.asarray(rng.standard_normal(dense.bias[...].shape), jnp.float32)
    return module


def numpy_squeeze_excite(module: SqueezeExcite, x: np.ndarray) -> np.ndarray:
    weights = jax.tree.map(lambda a: np.asarray(a, np.float64), nnx.to_pure_dict(nnx.state(module)))
    squeezed = x.astype(np.float64).mean((1, 2))
    hidden = np.maximum(squeezed @ weights["reduce"]["kernel"] + weights["reduce"]["bias"], 0)
    excited = 1 / (1 + np.exp(-(hidden @ weights["expand"]["kernel"] + weights["expand"]["bias"])))
    return x * excited[:, None, None, :]


@pytest.mark.parametrize("dtype", [None, jnp.bfloat16])
def test_channels_are_weighed_as_in_numpy(dtype) -> None:
    x = np.random.default_rng(1).standard_normal((2, 4, 3, 32)).astype(np.float32)
    y = layer(32, reduction=4, dtype=dtype)(jnp.asarray(x, dtype or jnp.float32))
    expected = numpy_squeeze_excite(layer(32, reduction=4), x)
    assert y.dtype == (dtype or jnp.float32)
    tolerance = BFLOAT16 if dtype else FLOAT32
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=0, atol=tolerance * np.abs(expected).max())
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(layer(32, dtype=dtype)))} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("features", "parameters"),
    [(64, 64 * 4 + 4 + 4 * 64 + 64), (8, 8 + 1 + 8 + 8)],  # by hand; a sixteenth, and at least one neuron
)
def test_the_hidden_layer_has_a_sixteenth_of_the_channels(features: int, parameters: int) -> None:
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(layer(features)))) == parameters
