"""The thesis' network: against NumPy, counted by hand, its options and its initial weights."""

import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.models import LeNet, create_model

# A network of six layers in float32 against the same in float64, relative to the largest logit.
FLOAT32 = 1e-5


def batch(images: int = 2) -> np.ndarray:
    return np.random.default_rng(0).random((images, 32, 32, 3), dtype=np.float32)


@cache
def built() -> nnx.Module:
    """The network with its defaults, built once; tests do not change it but for its mode."""
    return create_model("lenet")


def count(**options: Any) -> int:
    """Trained numbers; no array is made."""
    model = nnx.eval_shape(lambda: create_model("lenet", **options))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def forward(model: nnx.Module, images: Any) -> jax.Array:
    """The logits in evaluation mode, in one compiled program."""
    model.eval()
    graph, state = nnx.split(model)
    return jax.jit(lambda state, images: nnx.merge(graph, state)(images))(state, images)


def numpy_lenet(state: dict, images: np.ndarray) -> np.ndarray:
    """The network in float64, written from the text of the thesis: ReLU before pooling, no trick."""

    def convolve(x: np.ndarray, layer: dict) -> np.ndarray:
        kernel = np.asarray(layer["kernel"], np.float64)  # [h, w, in, out]
        cut = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))  # [b, h', w', in, h, w]
        return np.einsum("bijchw,hwco->bijo", cut, kernel, optimize=True) + np.asarray(layer["bias"])

    def pool(x: np.ndarray) -> np.ndarray:
        b, h, w, c = x.shape
        return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).max((2, 4))

    def dense(x: np.ndarray, layer: dict) -> np.ndarray:
        return x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"])

    x = images.astype(np.float64)
    for name in ("conv1", "conv2"):
        x = pool(np.maximum(convolve(x, state[name]), 0))
    x = x.reshape(len(x), -1)
    for i in range(len(state["hidden"])):
        x = np.maximum(dense(x, state["hidden"][i]), 0)
    return dense(x, state["head"])


def lenet_with_weights(weights: Any = None, **options: Any) -> nnx.Module:
    """A network with the given weights; with random ones, in which no bias is zero, when there are none."""
    model = nnx.eval_shape(lambda: create_model("lenet", **options))
    if weights is None:
        rng = np.random.default_rng(1)
        shapes = nnx.state(model, nnx.Param)
        weights = jax.tree.map(lambda a: jnp.asarray(rng.uniform(-0.1, 0.1, a.shape), jnp.float32), shapes)
    nnx.update(model, weights)
    return model


@pytest.mark.parametrize(("side", "channels"), [(32, 3), (28, 1), (33, 2), (16, 3)])
def test_lenet_is_the_network_of_the_thesis_written_in_numpy(side: int, channels: int) -> None:
    model = lenet_with_weights(image_size=side, in_channels=channels)
    images = np.random.default_rng(2).random((3, side, side, channels), dtype=np.float32)
    expected = numpy_lenet(nnx.to_pure_dict(nnx.state(model)), images)
    np.testing.assert_allclose(forward(model, images), expected, rtol=0, atol=FLOAT32 * np.abs(expected).max())


# By hand: 5*5*3*6 + 6 = 456, 5*5*6*16 + 16 = 2416; dense layers a*b + b.
@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 264_806),
        ({"hidden": (400, 120, 256, 84)}, 264_806),
        ({"hidden": (120, 256, 84)}, 104_406),
        ({"hidden": (120, 84)}, 456 + 2416 + 400 * 120 + 120 + 120 * 84 + 84 + 84 * 10 + 10),
        ({"hidden": ()}, 456 + 2416 + 4010),
        ({"hidden": (), "num_classes": 0}, 456 + 2416),
        ({"hidden": (), "in_channels": 1, "image_size": 28}, 156 + 2416 + 256 * 10 + 10),
        ({"hidden": (), "filters": (2, 3), "image_size": 16}, 152 + 153 + 3 * 10 + 10),
    ],
    ids=str,
)
def test_lenet_has_the_parameters_that_one_counts_by_hand(options: dict, parameters: int) -> None:
    assert count(**options) == parameters


def test_the_features_of_lenet_are_its_last_hidden_layer() -> None:
    for hidden, width in (((20, 30), 30), ((), 400)):
        features = nnx.eval_shape(lambda h=hidden: create_model("lenet", hidden=h).features(jnp.zeros((2, 32, 32, 3))))
        assert features.shape == (2, width)


def test_fresh_weights_of_lenet_are_glorot_uniform_and_its_biases_zero() -> None:
    for layer in layers_of(built()):
        kernel = np.asarray(layer["kernel"])
        area = math.prod(kernel.shape[:-2])
        limit = math.sqrt(6 / (area * (kernel.shape[-2] + kernel.shape[-1])))
        assert np.abs(kernel).max() <= limit
        assert np.abs(kernel).max() > 0.95 * limit  # 450 draws all below: once in 10**10
        # Uniform: std limit / sqrt(3), its estimate within 5 standard errors (kurtosis 1.8: sqrt(0.2 / n)).
        assert abs(kernel.std() / limit * math.sqrt(3) - 1) < 5 * math.sqrt(0.2 / kernel.size)
        assert not np.any(layer["bias"])


@pytest.mark.parametrize(("init", "gain"), [("lecun_normal", 1), ("he_normal", 2)])
def test_other_initial_weights_of_lenet_have_the_spread_they_are_named_for(init: str, gain: float) -> None:
    for layer in layers_of(create_model("lenet", init=init, hidden=())):
        kernel = np.asarray(layer["kernel"])
        # Gaussian (cut at two sigma): the estimate of its std within 5 standard errors, at most sqrt(0.5 / n).
        expected = math.sqrt(gain / math.prod(kernel.shape[:-1]))
        assert abs(kernel.std() / expected - 1) < 5 * math.sqrt(0.5 / kernel.size)


def layers_of(model: nnx.Module) -> list[dict]:
    state = nnx.to_pure_dict(nnx.state(model))
    hidden = state.get("hidden", {})
    return [state["conv1"], state["conv2"], *(hidden[i] for i in range(len(hidden))), state["head"]]


def test_softmax_at_the_end_gives_probabilities_of_the_same_network() -> None:
    images = batch()
    plain = built()
    twice = lenet_with_weights({"network": nnx.state(plain)}, softmax_output=True)
    probabilities, logits = forward(twice, images), np.asarray(forward(plain, images), np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=FLOAT32)
    assert jax.eval_shape(twice.features, images).shape == (2, 84)
    assert count(softmax_output=True) == count()


def test_lenet_in_bfloat16_computes_in_it_and_keeps_its_weights_in_float32() -> None:
    plain = built()
    model = lenet_with_weights(nnx.state(plain), dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))} == {jnp.dtype("float32")}
    images = batch()
    logits, expected = forward(model, images), forward(plain, images)
    assert logits.dtype == jnp.bfloat16
    # Seven layers, each rounding to 8 bits.
    np.testing.assert_allclose(logits, expected, rtol=0, atol=7 * 2**-8 * np.abs(expected).max())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"image_size": 15}, "Expected images of at least 16 pixels for lenet, got 15; do resize them"),
        ({"filters": (6, 16, 32)}, r"Expected two numbers of filters, got filters=\(6, 16, 32\)"),
        ({"filters": (6,)}, r"Expected two numbers of filters, got filters=\(6,\)"),
        ({"filters": (6, 0)}, r"Expected filters of at least 1 each, got filters=\(6, 0\); do choose larger ones"),
        ({"hidden": (120, -84)}, r"Expected hidden of at least 1 each, got hidden=\(120, -84\); do choose larger"),
        ({"hidden": [0]}, r"Expected hidden of at least 1 each, got hidden=\(0,\)"),
        ({"init": "zeros"}, "Expected init to be one of glorot_uniform, lecun_normal, he_normal, got 'zeros'"),
        ({"depth": 3}, r"Expected options of lenet \(num_classes, hidden, .*\), got depth"),
    ],
    ids=str,
)
def test_impossible_options_of_lenet_are_errors(options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        create_model("lenet", **options)


def test_the_class_and_the_registered_builder_build_the_same_network() -> None:
    ours, theirs = (nnx.state(model) for model in (LeNet(rngs=nnx.Rngs(0)), built()))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
