"""What holds of every registered model, tested by its being registered; then the thesis' network in particular."""

import math
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.models import LeNet, create_model, list_models, model_info

# Exact: a new model adds its number, computed by hand or taken from its paper.
PARAMETERS = {"lenet": 264_806}

# A network of six layers in float32 against the same in float64, relative to the largest logit.
FLOAT32 = 1e-5


def batch(name: str, images: int = 2) -> np.ndarray:
    side = model_info(name).input_size
    return np.random.default_rng(0).random((images, side, side, 3), dtype=np.float32)


@cache
def built(name: str) -> nnx.Module:
    """The model with its defaults, built once; tests do not change it but for its mode."""
    return create_model(name)


def count(name: str, **options: Any) -> int:
    """Trained numbers of a model; no array is made."""
    model = nnx.eval_shape(lambda: create_model(name, **options))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def forward(model: nnx.Module, images: Any) -> jax.Array:
    """The logits in evaluation mode, in one compiled program."""
    model.eval()
    graph, state = nnx.split(model)
    return jax.jit(lambda state, images: nnx.merge(graph, state)(images))(state, images)


@pytest.mark.parametrize("name", list_models())
def test_logits_have_one_number_per_class_and_are_finite(name: str) -> None:
    logits = forward(create_model(name, num_classes=7), batch(name))
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert np.isfinite(logits).all()
    assert np.ptp(logits, axis=0).min() > 0  # another image, other logits


@pytest.mark.parametrize("name", list_models())
def test_every_parameter_gets_a_gradient(name: str) -> None:
    model = built(name)
    model.train()
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    images = batch(name, 8)

    @jax.jit
    def gradient(params: Any) -> Any:
        return jax.grad(lambda p: jnp.square(nnx.merge(graph, p, rest)(images) - 1).sum())(params)

    for path, leaf in jax.tree.leaves_with_path(gradient(params)):
        assert np.isfinite(leaf).all(), path
        assert np.any(np.asarray(leaf) != 0), path


@pytest.mark.parametrize("name", list_models())
def test_the_number_of_parameters_is_exact(name: str) -> None:
    assert count(name) == PARAMETERS[name]


@pytest.mark.parametrize("name", list_models())
def test_without_classes_the_network_returns_its_features(name: str) -> None:
    headless, whole = create_model(name, num_classes=0), built(name)
    headless.eval(), whole.eval()
    run = jax.jit(lambda images: (headless(images), headless.features(images), whole.features(images)))
    output, features, of_whole = run(batch(name))
    assert features.ndim == 2
    np.testing.assert_array_equal(output, features)
    # The head is built last, so that the weights below it are those of the whole network.
    np.testing.assert_array_equal(features, of_whole)


@pytest.mark.parametrize("name", list_models())
def test_equal_rngs_build_equal_networks_and_others_other_ones(name: str) -> None:
    first, again, other = (nnx.state(create_model(name, rngs=nnx.Rngs(seed)), nnx.Param) for seed in (3, 3, 4))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(a != b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True))


@pytest.mark.parametrize("name", list_models())
def test_every_model_has_a_summary_and_the_options_that_all_have(name: str) -> None:
    info = model_info(name)
    assert info.name == name
    assert info.summary.endswith(".")
    assert info.options["num_classes"] == 10


# The thesis' network.


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
    assert count("lenet", **options) == parameters


def test_the_features_of_lenet_are_its_last_hidden_layer() -> None:
    for hidden, width in (((20, 30), 30), ((), 400)):
        features = nnx.eval_shape(lambda h=hidden: create_model("lenet", hidden=h).features(jnp.zeros((2, 32, 32, 3))))
        assert features.shape == (2, width)


def test_fresh_weights_of_lenet_are_glorot_uniform_and_its_biases_zero() -> None:
    for layer in layers_of(built("lenet")):
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
    images = batch("lenet")
    plain = built("lenet")
    twice = lenet_with_weights({"network": nnx.state(plain)}, softmax_output=True)
    probabilities, logits = forward(twice, images), np.asarray(forward(plain, images), np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(probabilities, expected, rtol=FLOAT32)
    assert jax.eval_shape(twice.features, images).shape == (2, 84)
    assert count("lenet", softmax_output=True) == count("lenet")


def test_lenet_in_bfloat16_computes_in_it_and_keeps_its_weights_in_float32() -> None:
    plain = built("lenet")
    model = lenet_with_weights(nnx.state(plain), dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))} == {jnp.dtype("float32")}
    images = batch("lenet")
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
        ({"init": "zeros"}, "Expected init to be one of glorot_uniform, lecun_normal, he_normal, got 'zeros'"),
        ({"depth": 3}, r"Expected options of lenet \(num_classes, hidden, .*\), got depth"),
    ],
    ids=str,
)
def test_impossible_options_of_lenet_are_errors(options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        create_model("lenet", **options)


def test_the_class_and_the_registered_builder_build_the_same_network() -> None:
    ours, theirs = (nnx.state(model) for model in (LeNet(rngs=nnx.Rngs(0)), built("lenet")))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
