"""The network of the races: in NumPy, its initial weights, its whitening, and how an experiment prepares it."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.data import dataset_from_arrays
from cnnlab.experiment.plan import Plan
from cnnlab.layers import patch_whitening_filters
from cnnlab.models import create_model
from cnnlab.training import Recipe, RecipeError, get_recipe
from cnnlab.training.groups import expect_groups, trained_filter
from tests.models import numpy_layers as oracle
from tests.models.numpy_layers import arrays, count, forward, with_random_numbers

SMALL: dict[str, Any] = {"widths": (4, 6, 5)}


def abstract(**options: Any) -> Any:
    return nnx.eval_shape(lambda: create_model("cifarnet", **options))


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def numpy_cifarnet(state: dict, x: np.ndarray, activation: Any, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits in float64."""

    def conv(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return oracle.conv(x, {"kernel": kernel, "bias": np.zeros(kernel.shape[-1])}, padding=(1, 1))

    def norm(x: np.ndarray, layer: dict) -> np.ndarray:
        mean, var, bias = (np.asarray(layer[name], np.float64) for name in ("mean", "var", "bias"))
        return (x - mean) / np.sqrt(var + 1e-12) + bias

    x = gelu(oracle.conv(x.astype(np.float64), state["whiten"]))
    for index in range(3):
        group = state["groups"][index]
        kernels = [group["convs"][i]["kernel"] for i in range(len(group["convs"]))]
        norms = [group["norms"][i] for i in range(len(kernels))]
        first = x = activation(norm(oracle.max_pool(conv(x, kernels[0]), 2, 2), norms[0]))
        x = norm(conv(x, kernels[1]), norms[1])
        if len(kernels) == 3:
            x = norm(conv(activation(x), kernels[2]), norms[2]) + first
        x = activation(x)
    features = x.max((1, 2))
    return features, features @ np.asarray(state["head"]["kernel"], np.float64) * scale


def group_by_hand(inputs: int, width: int, depth: int = 2) -> int:
    return 9 * width * (inputs + (depth - 1) * width) + depth * width


# By hand: 2*2*3*24 + 24 of the whitening, three groups with a bias for each norm, a head without bias.
@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 1_971_640),  # the paper's number
        ({}, 312 + group_by_hand(24, 64) + group_by_hand(64, 256) + group_by_hand(256, 256) + 2560),
        (
            {"widths": (128, 384, 512), "depth": 3},
            312 + group_by_hand(24, 128, 3) + group_by_hand(128, 384, 3) + group_by_hand(384, 512, 3) + 5120,
        ),
        ({"in_channels": 1, "num_classes": 0, "widths": (2, 2, 2)}, 4 * 8 + 8 + group_by_hand(8, 2) + 2 * (9 * 8 + 4)),
    ],
    ids=str,
)
def test_the_network_has_the_parameters_that_one_counts_by_hand(options: dict[str, Any], parameters: int) -> None:
    assert count(abstract(**options)) == parameters


@pytest.mark.parametrize(
    ("options", "side", "activation"),
    [({}, 32, gelu), ({"depth": 3, "activation": "silu", "logit_scale": 0.5}, 13, silu)],
    ids=["two convolutions", "three and a shortcut"],
)
def test_the_network_is_that_of_the_paper_written_in_numpy(options: dict[str, Any], side: int, activation: Any) -> None:
    model = with_random_numbers(abstract(**SMALL, **options), spread=0.5)
    images = np.random.default_rng(0).standard_normal((2, side, side, 3)).astype(np.float32)
    expected = numpy_cifarnet(arrays(model), images, activation, options.get("logit_scale", 1 / 9))
    for found, wanted in zip(forward(model, images), expected, strict=True):
        # Seven or ten layers in float32 against float64.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-5 * np.abs(wanted).max())


def test_convolutions_begin_with_copies_of_their_inputs_and_biases_at_zero() -> None:
    model = create_model("cifarnet", **SMALL, rngs=nnx.Rngs(1))
    for group in model.groups:
        for conv in group.convs:
            kernel = np.asarray(conv.kernel[...])
            copies = min(kernel.shape[2:])
            centre = np.zeros((3, 3, kernel.shape[2], copies))
            centre[1, 1] = np.eye(kernel.shape[2], copies)
            np.testing.assert_array_equal(kernel[..., :copies], centre)
        assert not any(np.any(norm.bias[...]) for norm in group.norms)
        assert all(norm.scale is None and norm.momentum == 0.6 for norm in group.norms)
    assert not np.any(model.whiten.bias[...])


def test_a_unit_head_begins_with_standard_deviation_one() -> None:
    plain, unit = (create_model("cifarnet", **SMALL, unit_head=u, rngs=nnx.Rngs(0)).head.kernel[...] for u in (0, 1))
    np.testing.assert_allclose(np.std(unit, ddof=1), 1, rtol=1e-5)
    # The same numbers, but for their size: up to 1 / sqrt(5 features) before.
    np.testing.assert_allclose(unit / unit.max(), plain / plain.max(), rtol=1e-5)
    assert np.abs(plain).max() <= 1 / math.sqrt(5)


def test_preparing_sets_the_first_filters_alone() -> None:
    model = create_model("cifarnet", **SMALL, rngs=nnx.Rngs(0))
    before = nnx.to_flat_state(nnx.state(model))
    before = {path: np.asarray(variable[...]) for path, variable in before}
    images = np.random.default_rng(0).standard_normal((20, 12, 12, 3)).astype(np.float32)
    model.prepare(images)
    np.testing.assert_array_equal(model.whiten.kernel[...], patch_whitening_filters(images))
    changed = [p for p, v in nnx.to_flat_state(nnx.state(model)) if np.any(before[p] != np.asarray(v[...]))]
    assert changed == [("whiten", "kernel")]


def test_preparing_another_width_than_that_of_whitening_is_an_error() -> None:
    model = create_model("cifarnet", **SMALL, whitening_width=16)
    with pytest.raises(
        ValueError, match="Expected whitening_width 24 to whiten patches, got 16; do leave the option out"
    ):
        model.prepare(jnp.ones((2, 12, 12, 3)))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"activation": "relu"}, "Expected activation to be one of gelu, silu, got 'relu'"),
        ({"depth": 4}, "Expected depth 2 or 3, got 4; do choose one of the two"),
        ({"widths": (64, 256)}, r"Expected three positive widths, got \(64, 256\); do pass e.g."),
    ],
    ids=str,
)
def test_impossible_options_are_errors(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        abstract(**options)


def test_images_too_small_for_three_poolings_are_an_error() -> None:
    with pytest.raises(ValueError, match="Expected images of at least 9 pixels for cifarnet, got 8; do resize them"):
        nnx.eval_shape(lambda model: model(jnp.zeros((1, 8, 8, 3))), abstract())


def small_data() -> Any:
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 10, 10, 3), np.uint8), rng.integers(0, 10, 60)
    return dataset_from_arrays(images[:40], labels[:40], images[40:], labels[40:], classes=[*"abcdefghij"])


def test_an_experiment_whitens_the_standardised_training_images() -> None:
    data = small_data()
    plan = Plan("cifarnet", {"widths": (2, 2, 2)}, data, None, None, Recipe(standardize=True))
    whiten = plan.network(0).network.whiten  # pyright: ignore[reportAttributeAccessIssue]
    pixels = data.train.images / 255
    images = (pixels - pixels.mean((0, 1, 2))) / pixels.std((0, 1, 2))
    # float32 from float64; the pixels are noise, so that eigenvalues lie close together: patches decide, not filters.
    patches = np.lib.stride_tricks.sliding_window_view(images, (2, 2), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)
    answers = patches.reshape(-1, 12) @ np.asarray(whiten.kernel[...]).reshape(12, 24)[:, :12]
    np.testing.assert_allclose(answers.T @ answers / len(answers), np.eye(12), rtol=0, atol=2e-3)


def test_an_experiment_leaves_a_network_with_weights_of_its_own_as_it_is() -> None:
    model = create_model("cifarnet", widths=(2, 2, 2), rngs=nnx.Rngs(5))
    plan = Plan(model, {}, small_data(), None, None, Recipe())
    np.testing.assert_array_equal(plan.network(0).whiten.kernel[...], model.whiten.kernel[...])  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("name", ["race94", "race94-muon", "race95", "race96"])
def test_the_recipes_of_the_races_fit_the_network(name: str) -> None:
    recipe, model = get_recipe(name), abstract(**SMALL)
    expect_groups(model, recipe)
    free = {path for path, _ in nnx.to_flat_state(nnx.state(model, trained_filter(model, recipe.freeze)))}
    everything = {path for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    assert everything - free == {("whiten", "kernel")}
    with pytest.raises(RecipeError, match="Expected every pattern of freeze"):
        expect_groups(nnx.eval_shape(lambda: create_model("lenet")), recipe)


def test_the_published_rates_are_those_of_the_recipe() -> None:
    """One update of the recipe is one of PyTorch's with the sum of the losses and the published numbers."""
    recipe = get_recipe("race94")
    # lr, wd of weights and of the biases of norms in the script's terms, to the digits that are published.
    for factor, decay, rate, weight_decay in ((1, 1, 1.465e-3, 1.362), (64, 1 / 64, 9.375e-2, 2.13e-2)):
        np.testing.assert_allclose(recipe.learning_rate * factor / recipe.batch_size, rate, rtol=5e-4)
        np.testing.assert_allclose(recipe.weight_decay * decay * recipe.batch_size, weight_decay, rtol=1e-3)
    assert dict(recipe.learning_rates) == {"*.norms.*": 64.0}
    assert dict(recipe.weight_decays) == {"*.norms.*": 1 / 64, "whiten.bias": 1.0}
    muon = get_recipe("race94-muon")
    heads, decays = dict(muon.learning_rates), dict(muon.weight_decays)
    np.testing.assert_allclose([muon.learning_rate / 2000, muon.learning_rate * heads["head"] / 2000], [0.053, 0.67])
    shrinking = muon.learning_rate * muon.weight_decay * (1 - muon.momentum)
    np.testing.assert_allclose([shrinking, shrinking * heads["head"] * decays["head"]], [2e-6 * 2000] * 2, rtol=1e-6)
