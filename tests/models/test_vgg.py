"""VGG: the numbers of the references, the network written in NumPy, both classifiers, initial weights."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.models import VGG, create_model
from tests.models import numpy_layers as oracle
from tests.models.numpy_layers import arrays, count, forward, with_random_numbers

# Up to nine layers in float32 against the same in float64, relative to the largest output.
FLOAT32 = 1e-5

# Table 1 of the paper, columns A, B, D and E: filters of each convolution.
FILTERS = {
    "vgg11": [64, 128, 256, 256, 512, 512, 512, 512],
    "vgg13": [64, 64, 128, 128, 256, 256, 512, 512, 512, 512],
    "vgg16": [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512],
    "vgg19": [64, 64, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512, 512, 512, 512, 512],
}
PARAMETERS = {
    "vgg11": 132_863_336,
    "vgg13": 133_047_848,
    "vgg16": 138_357_544,
    "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840,
    "vgg13_bn": 133_053_736,
    "vgg16_bn": 138_365_992,
    "vgg19_bn": 143_678_248,
}


def abstract(name: str, **options: Any) -> Any:
    return nnx.eval_shape(lambda: create_model(name, **options))


def miniature(**options: Any) -> VGG:
    """VGG with few filters: stages of one, two and one convolution."""
    options = {"widths": (3, 4, 5), "hidden": (6, 7), "rngs": nnx.Rngs(0), **options}
    return VGG((1, 2, 1), 5, **options)


def numpy_vgg(state: dict, x: np.ndarray, classifier: str) -> np.ndarray:
    """The features of the miniature in float64, in evaluation mode."""
    x, index = x.astype(np.float64), 0
    for depth in (1, 2, 1):
        for _ in range(depth):
            x = oracle.conv(x, state["convs"][index], padding=(1, 1))
            if state.get("norms"):
                norm = {name: np.asarray(values, np.float64) for name, values in state["norms"][index].items()}
                x = (x - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * norm["scale"] + norm["bias"]
            x, index = np.maximum(x, 0), index + 1
        x = oracle.max_pool(x, 2, 2)
    if classifier == "cifar":
        return x.mean((1, 2))
    x = oracle.adaptive_avg_pool(x, 7).reshape(len(x), -1)
    for layer in range(2):
        x = np.maximum(oracle.dense(x, state["hidden"][layer]), 0)
    return x


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_vgg_has_the_layers_of_the_paper_and_the_parameters_of_the_references(name: str) -> None:
    model = abstract(name, num_classes=1000)
    filters = FILTERS[name.removesuffix("_bn")]
    assert [conv.out_features for conv in model.convs] == filters
    assert [norm.num_features for norm in model.norms] == (filters if name.endswith("_bn") else [])
    assert [layer.kernel.shape for layer in [*model.hidden, model.head]] == [(25_088, 4096), (4096, 4096), (4096, 1000)]
    assert count(model) == PARAMETERS[name]


def test_the_classifier_for_small_images_is_one_dense_layer_on_512_means() -> None:
    model = abstract("vgg16", classifier="cifar")
    channels = [3, *FILTERS["vgg16"]]
    convolutions = sum(9 * a * b + b for a, b in zip(channels[:-1], channels[1:], strict=True))
    assert count(model) == convolutions + 512 * 10 + 10
    assert len(model.hidden) == 0
    without_dropout = abstract("vgg16", classifier="cifar", dropout=0.0)
    assert jax.tree.leaves(nnx.state(without_dropout, nnx.RngState)) == []
    images = jnp.zeros((2, 32, 32, 3))
    assert nnx.eval_shape(lambda model: model.features(images), model).shape == (2, 512)
    assert nnx.eval_shape(lambda model: model(images), model).shape == (2, 10)


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_norm": True}, {"classifier": "cifar", "batch_norm": True}],
    ids=str,
)
def test_vgg_is_the_network_of_the_paper_written_in_numpy(options: dict[str, Any]) -> None:
    model = with_random_numbers(nnx.eval_shape(lambda: miniature(**options)), spread=0.5)
    x = np.random.default_rng(0).random((2, 67, 72, 3), np.float32)  # 8 x 9 pixels are left, neither 7 nor 1
    features = numpy_vgg(arrays(model), x, options.get("classifier", "imagenet"))
    for found, expected in zip(
        forward(model, x), (features, oracle.dense(features, arrays(model)["head"])), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=FLOAT32 * np.abs(expected).max())


def test_dropout_acts_after_the_hidden_layers_in_train_mode_only() -> None:
    # All weights zero and all biases zero but those of the hidden layers, which are one: features of ones.
    model = miniature(hidden=(4, 1000))
    nnx.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    for layer in model.hidden:
        layer.bias[...] = jnp.ones_like(layer.bias[...])
    expect_ones_or_twos(model, np.ones((1, 64, 64, 3), np.float32))


def test_dropout_acts_on_the_means_of_the_classifier_for_small_images() -> None:
    # All weights zero and all biases zero but those of the last convolution, which are one: means of ones.
    model = miniature(widths=(3, 4, 1000), classifier="cifar")
    nnx.update(model, jax.tree.map(jnp.zeros_like, nnx.state(model, nnx.Param)))
    model.convs[-1].bias[...] = jnp.ones_like(model.convs[-1].bias[...])
    expect_ones_or_twos(model, np.ones((1, 8, 8, 3), np.float32))


def expect_ones_or_twos(model: VGG, x: np.ndarray) -> None:
    """In train mode half of the features are dropped and the others doubled; in eval mode all are ones."""
    dropped, _ = forward(model, x)
    np.testing.assert_array_equal(np.unique(dropped), [0, 2])
    assert abs((dropped == 0).mean() - 0.5) < 5 * np.sqrt(0.25 / dropped.size)  # five standard errors
    model.eval()
    np.testing.assert_array_equal(forward(model, x)[0], np.ones((1, 1000)))


def test_fresh_convolutions_are_he_normal_by_fan_out_and_dense_layers_normal() -> None:
    model = miniature(widths=(64, 32, 64), hidden=(32, 64), batch_norm=True)
    for layer in [*model.convs, *model.hidden, model.head]:
        kernel = np.asarray(layer.kernel[...])
        expected = np.sqrt(2 / (9 * kernel.shape[-1])) if kernel.ndim == 4 else 0.01
        # The estimate from n normal numbers, within five standard errors.
        assert abs(kernel.std() / expected - 1) < 5 * np.sqrt(0.5 / kernel.size)
        assert not np.any(layer.bias[...])


def test_vgg_in_bfloat16_keeps_weights_and_statistics_in_float32() -> None:
    model = abstract("vgg11_bn", dtype="bfloat16")
    kept = nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat))
    assert {leaf.dtype for leaf in jax.tree.leaves(kept)} == {jnp.dtype("float32")}
    assert nnx.eval_shape(lambda model: model(jnp.zeros((1, 64, 64, 3))), model).dtype == jnp.bfloat16


def test_an_image_below_64_pixels_that_meets_the_imagenet_classifier_gives_one_warning() -> None:
    shape_of = lambda model, side: nnx.eval_shape(lambda m: m(jnp.zeros((1, side, side, 3))), model).shape  # noqa: E731
    model = nnx.eval_shape(miniature)
    with pytest.warns(UserWarning, match="got 32 x 32; do build the network with classifier='cifar'") as caught:
        assert shape_of(model, 32) == (1, 5)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shape_of(model, 64)
        shape_of(nnx.eval_shape(lambda: miniature(classifier="cifar")), 32)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"classifier": "cifar10"}, "Expected classifier to be imagenet or cifar, got 'cifar10'; do choose one"),
        ({"widths": (3, 4)}, r"Expected one width for each of 3 stages, got \(3, 4\); do match them"),
        ({"dropout": 1.5}, r"Expected a dropout rate in \[0, 1\), got 1.5"),
        ({"dropout": 1.5, "classifier": "cifar"}, r"Expected a dropout rate in \[0, 1\), got 1.5"),
    ],
    ids=str,
)
def test_impossible_options_of_vgg_are_errors(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        nnx.eval_shape(lambda: miniature(**options))


@pytest.mark.parametrize("classifier", ["imagenet", "cifar"])
def test_images_that_five_halvings_leave_nothing_of_are_an_error(classifier: str) -> None:
    model = abstract("vgg11", classifier=classifier)
    with pytest.raises(ValueError, match="Expected images of at least 32 pixels for VGG, which .*, got 31; do resize"):
        nnx.eval_shape(lambda model: model(jnp.zeros((1, 40, 31, 3))), model)
