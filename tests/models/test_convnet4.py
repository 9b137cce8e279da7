"""The four-layer network of the comparison of ReLU and tanh."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.models import create_model
from tests.models import numpy_layers as oracle
from tests.models.numpy_layers import arrays, count, forward, with_random_numbers


def abstract(**options: Any) -> Any:
    return nnx.eval_shape(lambda: create_model("convnet4", **options))


def numpy_convnet4(state: dict, x: np.ndarray, activation: Any) -> np.ndarray:
    """The features in float64: activation before pooling; windows at the border count the pixels that exist."""
    x = x.astype(np.float64)
    for index in range(3):
        x = activation(oracle.conv(x, state["convs"][index], padding=(2, 2)))
        padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=np.nan)
        cut = oracle.windows(padded, 3, 2)
        x = np.nanmax(cut, axis=(-2, -1)) if index == 0 else np.nanmean(cut, axis=(-2, -1))
    return x.reshape(len(x), -1)


# By hand: 5*5*3*32 + 32, 5*5*32*32 + 32, 5*5*32*64 + 64, then (32 // 8)**2 * 64 inputs of the dense layer.
@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 2432 + 25_632 + 51_264 + 1024 * 10 + 10),
        ({"activation": "tanh"}, 89_578),
        ({"in_channels": 1, "image_size": 28, "num_classes": 5}, 832 + 25_632 + 51_264 + 9 * 64 * 5 + 5),
        ({"num_classes": 0}, 2432 + 25_632 + 51_264),
    ],
    ids=str,
)
def test_the_network_has_the_parameters_that_one_counts_by_hand(options: dict[str, Any], parameters: int) -> None:
    assert count(abstract(**options)) == parameters


@pytest.mark.parametrize(("activation", "side"), [("relu", 32), ("tanh", 23)])
def test_the_network_is_that_of_cuda_convnet_written_in_numpy(activation: str, side: int) -> None:
    model = with_random_numbers(abstract(activation=activation, image_size=side))
    images = np.random.default_rng(0).standard_normal((2, side, side, 3)).astype(np.float32)
    f = {"relu": lambda z: np.maximum(z, 0), "tanh": np.tanh}[activation]
    features = numpy_convnet4(arrays(model), images, f)
    assert features.shape == (2, (side // 8) ** 2 * 64)
    logits = oracle.dense(features, arrays(model)["head"])
    for found, expected in zip(forward(model, images), (features, logits), strict=True):
        # Four layers in float32 against float64.
        np.testing.assert_allclose(found, expected, rtol=0, atol=5e-6 * np.abs(expected).max())


def test_initial_weights_suit_the_activation_or_are_those_of_cuda_convnet() -> None:
    choices = ({}, {"activation": "tanh"}, {"init": "cuda_convnet"})

    @jax.jit  # one program for the three networks
    def fresh() -> list[list[tuple[jax.Array, jax.Array]]]:
        """The standard deviation of each layer's weights and its biases."""
        models: list[Any] = [create_model("convnet4", **options) for options in choices]
        return [[(layer.kernel[...].std(), layer.bias[...]) for layer in [*m.convs, m.head]] for m in models]

    fans = [(75, 800), (800, 800), (800, 1600), (1024, 10)]
    he, glorot = [np.sqrt(2 / fan_in) for fan_in, _ in fans], [np.sqrt(2 / sum(fan)) for fan in fans]
    for found, expected in zip(fresh(), (he, glorot, [0.0255, 0.01, 0.01, 0.01]), strict=True):
        # Estimates from at least 2400 numbers, within five standard errors.
        np.testing.assert_allclose([std for std, _ in found], expected, rtol=0.075)
        assert not any(np.any(bias) for _, bias in found)


def test_it_has_no_random_state_and_computes_in_the_type_that_it_is_told() -> None:
    assert jax.tree.leaves(nnx.state(abstract(), nnx.RngState)) == []
    model = abstract(dtype="bfloat16")
    assert nnx.eval_shape(lambda model: model(jnp.zeros((1, 32, 32, 3))), model).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"activation": "step"}, "Expected activation to be one of relu, tanh, sigmoid, linear, got 'step'; do choose"),
        ({"init": "zeros"}, "Expected init to be one of scaled, cuda_convnet, got 'zeros'; do choose one"),
        ({"image_size": 7}, "Expected images of at least 8 pixels for convnet4, got 7; do resize them"),
    ],
    ids=str,
)
def test_impossible_options_are_errors(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        abstract(**options)


def test_images_of_another_size_are_an_error() -> None:
    with pytest.raises(ValueError, match="Expected images of 32 x 32 pixels, got 28 x 28; do resize them, or build"):
        nnx.eval_shape(lambda model: model(jnp.zeros((1, 28, 28, 3))), abstract())
