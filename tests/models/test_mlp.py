"""The feed-forward network over flattened images."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.layers import FeedForward
from cnnlab.models import create_model
from tests.models import numpy_layers as oracle
from tests.models.numpy_layers import arrays, count, forward, with_random_numbers


def abstract(**options: Any) -> Any:
    return nnx.eval_shape(lambda: create_model("mlp", **options))


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 3072 * 512 + 512 + 512 * 512 + 512 + 5130),
        ({"hidden": ()}, 3072 * 10 + 10),
        ({"hidden": (30,), "in_channels": 1, "image_size": 28, "num_classes": 5}, 784 * 30 + 30 + 30 * 5 + 5),
        ({"hidden": (7, 6, 5), "num_classes": 0}, 3072 * 7 + 7 + 7 * 6 + 6 + 6 * 5 + 5),
    ],
    ids=str,
)
def test_the_network_has_the_parameters_that_one_counts_by_hand(options: dict[str, Any], parameters: int) -> None:
    assert count(abstract(**options)) == parameters


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_the_network_is_dense_layers_on_pixels_row_by_row(activation: str) -> None:
    options = {"hidden": [6, 5], "image_size": 4, "in_channels": 2, "activation": activation}  # a list, as from JSON
    model = with_random_numbers(abstract(**options), spread=0.5)
    images = np.random.default_rng(0).standard_normal((3, 4, 4, 2)).astype(np.float32)
    state, f = arrays(model), {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}[activation]
    features = images.reshape(3, -1).astype(np.float64)
    for layer in range(2):
        features = f(oracle.dense(features, state["hidden"][layer]))
    for found, expected in zip(forward(model, images), (features, oracle.dense(features, state["head"])), strict=True):
        # Three layers in float32 against float64.
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_the_network_is_the_feed_forward_network_of_the_layers() -> None:
    model = create_model("mlp", hidden=(3,), image_size=4, rngs=nnx.Rngs(1))
    layers = FeedForward(48, (3,), 10, rngs=nnx.Rngs(1))
    images = jnp.asarray(np.random.default_rng(0).random((2, 4, 4, 3), np.float32))
    np.testing.assert_array_equal(model(images), layers(images.reshape(2, -1)))
    assert jax.tree.leaves(nnx.state(model, nnx.RngState)) == []


def test_images_of_another_size_and_unknown_activations_are_errors() -> None:
    with pytest.raises(ValueError, match="Expected images of 32 x 32 pixels, got 28 x 32; do resize them, or build"):
        nnx.eval_shape(lambda model: model(jnp.zeros((1, 28, 32, 3))), abstract())
    with pytest.raises(ValueError, match="Expected activation to be one of relu, tanh, sigmoid, linear, got 'step'"):
        abstract(activation="step")
