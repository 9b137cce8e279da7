"""AlexNet: the numbers of the paper, the network written in NumPy, towers, dropout and initial weights."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnlab.models import AlexNet, create_model
from cnnlab.models.alexnet import Convolution
from tests.models import numpy_layers as oracle
from tests.models.numpy_layers import arrays, count, forward, with_random_numbers

# Eight layers in float32 against the same in float64, relative to the largest output.
FLOAT32 = 1e-5

# Of each convolution: stride, padding before and after, groups.
TWO_TOWERS = [(4, (0, 3), 1), (1, (2, 2), 2), (1, (1, 1), 1), (1, (1, 1), 2), (1, (1, 1), 2)]
ONE_TOWER = [(4, (2, 2), 1), (1, (2, 2), 1), (1, (1, 1), 1), (1, (1, 1), 1), (1, (1, 1), 1)]
SMALL = [(1, (2, 2), 1), *ONE_TOWER[1:]]


def abstract(name: str, **options: Any) -> Any:
    return nnx.eval_shape(lambda: create_model(name, **options))


def images(side: int, *, number: int = 2, largest: float = 255.0) -> np.ndarray:
    """Pixels as the paper has them, less their mean: so large that response normalisation shows."""
    rng = np.random.default_rng(0)
    return ((rng.random((number, side, side, 3)) - 0.5) * largest).astype(np.float32)


def numpy_alexnet(
    state: dict, x: np.ndarray, layers: list, *, activation: Any = None, normalized: bool, grid: int | None = None
) -> np.ndarray:
    """The features in float64, from the text of the paper; response normalisation as a loop over channels."""
    f = activation or (lambda z: np.maximum(z, 0))
    x = x.astype(np.float64)
    for index, (stride, padding, groups) in enumerate(layers):
        x = f(oracle.conv(x, state["convs"][index], stride=stride, padding=padding, groups=groups))
        if normalized and index < 2:
            squares = np.pad(x**2, ((0, 0), (0, 0), (0, 0), (2, 2)))
            energy = sum(squares[..., i : i + x.shape[-1]] for i in range(5))
            x = x / (2 + 1e-4 * energy) ** 0.75
        if index in (0, 1, 4):
            x = oracle.max_pool(x, 3, 2)
    if grid is not None:
        x = oracle.adaptive_avg_pool(x, grid)
    x = x.reshape(len(x), -1)
    for index in range(2):
        x = f(oracle.dense(x, state["hidden"][index]))
    return x


def assert_same(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=FLOAT32 * np.abs(expected).max())


# The numbers of the paper.


def test_each_layer_of_alexnet_has_the_parameters_of_the_paper() -> None:
    model = abstract("alexnet", num_classes=1000)
    of_each = [count(layer) for layer in [*model.convs, *model.hidden, model.head]]
    assert of_each == [34_944, 307_456, 885_120, 663_936, 442_624, 37_752_832, 16_781_312, 4_097_000]
    assert count(model) == 60_965_224
    assert count(abstract("alexnet", num_classes=1000, local_response_norm=False, dropout=0.0)) == 60_965_224


@pytest.mark.parametrize("side", [224, 227])
def test_alexnet_has_the_neurons_of_the_paper(side: int) -> None:
    model, neurons = abstract("alexnet", num_classes=1000, image_size=side), []

    def record(x: jax.Array) -> jax.Array:
        neurons.append(x.size)
        return nnx.relu(x)

    model.activation = record
    logits = nnx.eval_shape(lambda model: model(jnp.zeros((1, side, side, 3))), model)
    # The paper's list begins with 253,440, which is 55 x 48 x 96; 55 x 55 x 96 is 290,400.
    assert neurons == [55 * 55 * 96, 186_624, 64_896, 64_896, 43_264, 4096, 4096]
    assert sum(neurons) + logits.size == 659_272


def test_the_single_tower_has_the_parameters_of_the_libraries() -> None:
    model = abstract("alexnet_single", num_classes=1000)
    assert [conv.out_features for conv in model.convs] == [64, 192, 384, 256, 256]
    assert count(model) == 61_100_840


def test_alexnet_for_small_images_has_half_the_filters_and_a_quarter_of_the_hidden_neurons() -> None:
    small, large = abstract("alexnet_cifar"), abstract("alexnet")
    assert [2 * conv.out_features for conv in small.convs] == [conv.out_features for conv in large.convs]
    assert [4 * layer.out_features for layer in small.hidden] == [layer.out_features for layer in large.hidden]
    convolutions = (
        3 * 25 * 48 + 48 + 48 * 25 * 128 + 128 + 128 * 9 * 192 + 192 + 192 * 9 * 192 + 192 + 192 * 9 * 128 + 128
    )
    assert count(small) == convolutions + 3 * 3 * 128 * 1024 + 1024 + 1024 * 1024 + 1024 + 10_250
    assert count(abstract("alexnet_cifar", in_channels=1, image_size=64)) == (
        convolutions - 2 * 25 * 48 + 7 * 7 * 128 * 1024 + 1024 + 1024 * 1024 + 1024 + 10_250
    )


# The function.


@pytest.fixture(scope="module")
def two_towers() -> Any:
    """AlexNet of 2012 for its smallest images, with random numbers for weights."""
    return with_random_numbers(abstract("alexnet", image_size=64), spread=0.03)


def test_alexnet_is_the_network_of_the_paper_written_in_numpy(two_towers: Any) -> None:
    x, state = images(64), arrays(two_towers)
    expected = numpy_alexnet(state, x, TWO_TOWERS, normalized=True)
    features, logits = forward(two_towers, x)
    assert_same(features, expected)
    assert_same(logits, oracle.dense(expected, state["head"]))
    without = numpy_alexnet(state, x, TWO_TOWERS, normalized=False)
    assert np.abs(without - expected).max() > 0.1 * np.abs(expected).max()  # the oracle would notice


@pytest.mark.parametrize("options", [{}, {"activation": "tanh", "local_response_norm": False}], ids=str)
def test_alexnet_for_small_images_is_the_network_written_in_numpy(options: dict[str, Any]) -> None:
    model = with_random_numbers(abstract("alexnet_cifar", **options))
    activation = np.tanh if options.get("activation") == "tanh" else None
    normalized = options.get("local_response_norm", True)
    x = images(32)
    expected = numpy_alexnet(arrays(model), x, SMALL, activation=activation, normalized=normalized)
    assert_same(forward(model, x)[0], expected)


def miniature(layers: list, side: int | None = None, **options: Any) -> AlexNet:
    """AlexNet with few filters, so that it is quickly built and compiled."""
    sizes = zip((4, 6, 8, 6, 4), (11, 5, 3, 3, 3), layers, strict=True)
    convolutions = [Convolution(filters, kernel, *layer) for filters, kernel, layer in sizes]
    options = {"hidden": (20, 30), "image_size": side, "rngs": nnx.Rngs(0), **options}
    return AlexNet(convolutions, 5, **options)


@pytest.mark.parametrize("side", [63, 130])  # the last map is 1 x 1 and 3 x 3: neither is the grid
def test_the_single_tower_is_the_network_written_in_numpy_at_any_size(side: int) -> None:
    model = with_random_numbers(nnx.eval_shape(lambda: miniature(ONE_TOWER, dropout_before=True)), spread=0.3)
    expected = numpy_alexnet(arrays(model), images(side), ONE_TOWER, normalized=False, grid=6)
    assert_same(forward(model, images(side))[0], expected)


def test_the_layers_of_the_single_tower_are_those_of_the_test() -> None:
    convs = abstract("alexnet_single").convs
    assert [conv.kernel_size[0] for conv in convs] == [11, 5, 3, 3, 3]
    assert [(conv.strides, conv.padding[0], conv.feature_group_count) for conv in convs] == ONE_TOWER


def test_at_227_pixels_no_window_of_alexnet_meets_the_padding() -> None:
    conv = with_random_numbers(abstract("alexnet", image_size=227).convs[0])
    x = images(227, number=1)
    expected = oracle.conv(x, arrays(conv), stride=4)
    assert expected.shape == (1, 55, 55, 96)
    assert_same(np.asarray(conv(x)), expected)


def test_two_towers_meet_at_the_third_convolution_and_the_dense_layers_only(two_towers: Any) -> None:
    for index, conv in enumerate(two_towers.convs):
        channels, filters = arrays(conv)["kernel"].shape[2] * conv.feature_group_count, conv.out_features
        x = np.random.default_rng(0).random((1, 5 if index else 15, 5 if index else 15, channels), np.float32)
        other = x.copy()
        other[..., channels // 2 :] += 1  # the second tower's input
        changed = np.asarray(conv(x) != conv(other)).any((0, 1, 2))
        assert changed[filters // 2 :].all()
        assert changed[: filters // 2].any() == (index in (0, 2))


# Dropout.


def of_ones(**options: Any) -> AlexNet:
    """A miniature whose hidden layers yield ones: all weights are zero and all biases one."""
    ones = {"kernel_init": nnx.initializers.zeros, "hidden_bias": 1.0, "hidden": (20, 1000)}
    return miniature(TWO_TOWERS, 64, **{**ones, **options})


def test_dropout_acts_on_hidden_neurons_in_train_mode_only() -> None:
    model, x = of_ones(), images(64, number=1)
    dropped, _ = forward(model, x)
    np.testing.assert_array_equal(np.unique(dropped), [0, 2])
    assert abs((dropped == 0).mean() - 0.5) < 5 * np.sqrt(0.25 / dropped.size)  # five standard errors
    model.eval()
    np.testing.assert_array_equal(forward(model, x)[0], np.ones((1, 1000)))


def test_dropout_before_the_hidden_layers_leaves_the_features_whole() -> None:
    model, x = of_ones(dropout_before=True), images(64, number=1)
    np.testing.assert_array_equal(forward(model, x)[0], np.ones((1, 1000)))
    # What they drop is their input, so that with other weights two calls differ.
    model = of_ones(dropout_before=True, kernel_init=nnx.initializers.constant(0.01))
    graph, state = nnx.split(model)
    draws = jax.jit(lambda state: [m.features(x) for m in [nnx.merge(graph, state)] for _ in range(2)])(state)
    assert np.any(draws[0] != draws[1])


def test_without_dropout_there_is_no_random_state_and_train_mode_is_eval_mode() -> None:
    assert jax.tree.leaves(nnx.state(abstract("alexnet"), nnx.RngState)) != []
    model, x = of_ones(dropout=0.0, kernel_init=nnx.initializers.constant(0.01)), images(64)
    assert jax.tree.leaves(nnx.state(model, nnx.RngState)) == []
    _, training = forward(model, x)
    model.eval()
    np.testing.assert_array_equal(forward(model, x)[1], training)


# Initial weights.


@pytest.fixture(scope="module")
def fresh() -> Any:
    """AlexNet of 2012 for its smallest images, as it starts."""
    return create_model("alexnet", image_size=64, dropout=0.0)


def test_fresh_weights_of_alexnet_are_those_of_the_paper_for_pixels_up_to_one(fresh: Any) -> None:
    layers = [*fresh.convs, *fresh.hidden, fresh.head]
    for layer, bias in zip(layers, (0, 1, 0, 1, 1, 1, 1, 0), strict=True):
        kernel, std = np.asarray(layer.kernel[...]), 2.55 if layer is fresh.convs[0] else 0.01
        # Estimates from n normal numbers, within five standard errors.
        assert abs(kernel.std() / std - 1) < 5 * np.sqrt(0.5 / kernel.size)
        assert abs(kernel.mean()) < 5 * std / np.sqrt(kernel.size)
        np.testing.assert_array_equal(layer.bias[...], np.full(layer.bias.shape, bias))


def test_the_logits_of_a_fresh_alexnet_depend_on_the_image(fresh: Any) -> None:
    """How far images move a logit beside how far logits are apart: the constant part comes from biases of one.

    It grows with the map before the dense layers, which at 64 pixels is 1 x 1: this is the smallest share there is.
    """
    blocks = np.random.default_rng(0).random((8, 8, 8, 3), np.float32).repeat(8, 1).repeat(8, 2)
    graph, state = nnx.split(fresh)
    logits = jax.jit(lambda state, x: nnx.merge(graph, state)(x))

    def share(state: Any) -> float:
        found = np.asarray(logits(state, blocks))
        return found.std(0).mean() / found.std(1).mean()

    scaled = share(state)
    assert scaled > 5e-4  # measured: 1e-3
    small = jax.tree.map(lambda x: x, state)
    small["convs"][0]["kernel"][...] = state["convs"][0]["kernel"][...] / 255
    assert share(small) < scaled / 100  # as with weights of 0.01: measured 6e-6


def test_fresh_weights_for_small_images_are_he_normal_and_biases_zero() -> None:
    model = create_model("alexnet_cifar")
    for layer in [*model.convs, *model.hidden, model.head]:
        kernel = np.asarray(layer.kernel[...])
        expected = np.sqrt(2 / np.prod(kernel.shape[:-1]))
        assert abs(kernel.std() / expected - 1) < 5 * np.sqrt(0.5 / kernel.size)
        assert not np.any(layer.bias[...])


# Types and errors.


def test_alexnet_in_bfloat16_keeps_its_weights_in_float32() -> None:
    model = abstract("alexnet", dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))} == {jnp.dtype("float32")}
    assert nnx.eval_shape(lambda model: model(jnp.zeros((1, 224, 224, 3))), model).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("name", "options", "text"),
    [
        (
            "alexnet",
            {"image_size": 63},
            "Expected images of at least 64 pixels for this AlexNet, got 63; do resize them, or use alexnet_cifar for",
        ),
        ("alexnet_cifar", {"image_size": 14}, r"at least 15 pixels for this AlexNet, got 14; do resize them\."),
        ("alexnet", {"activation": "rely"}, "Expected activation to be one of relu, tanh, sigmoid, linear, got 'rely'"),
        ("alexnet_single", {"dropout": 50}, r"Expected a dropout rate in \[0, 1\), got 50"),
    ],
    ids=str,
)
def test_impossible_options_of_alexnet_are_errors(name: str, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        abstract(name, **options)


@pytest.mark.parametrize(
    ("name", "side", "text"),
    [
        ("alexnet", 32, "Expected images of 224 x 224 pixels, got 32 x 32; do resize them, or build the network with"),
        ("alexnet_single", 62, "Expected images of at least 63 pixels for this AlexNet, got 62; do resize them"),
    ],
)
def test_images_of_a_wrong_size_are_an_error(name: str, side: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        nnx.eval_shape(lambda model: model(jnp.zeros((1, side, side, 3))), abstract(name))


@pytest.mark.slow
def test_alexnet_for_small_images_learns_sixteen_images_by_heart() -> None:
    model = create_model("alexnet_cifar")
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    optimizer = optax.sgd(0.01, momentum=0.9)
    x, labels = images(32, number=16, largest=1.0), np.arange(16) % 10

    def loss_of(params: Any, rest: Any) -> Any:
        model = nnx.merge(graph, params, rest, copy=True)
        loss = optax.softmax_cross_entropy_with_integer_labels(model(x), labels).mean()
        return loss, nnx.state(model, nnx.Not(nnx.Param))

    @jax.jit
    def step(params: Any, rest: Any, state: Any) -> Any:
        (loss, rest), gradient = jax.value_and_grad(loss_of, has_aux=True)(params, rest)
        updates, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, updates), rest, state, loss

    state = optimizer.init(params)
    for _ in range(150):
        params, rest, state, _ = step(params, rest, state)
    model = nnx.merge(graph, params, rest)
    model.eval()
    assert (forward(model, x)[1].argmax(-1) == labels).all()
