"""What holds of every registered model, tested by its being registered.

Size and shape are tested in the abstract, at full size, for all. Numbers are computed by every model too, but by the
large ones only with `-m slow`. Golden logits lie in golden.json; where a change of them is meant, renew them:

    make test ARGS="tests/models/test_every_model.py --renew-golden"
    make test-slow ARGS="tests/models/test_every_model.py --renew-golden"
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.models import create_model, list_models, model_info

GOLDEN = Path(__file__).with_name("golden.json")

# Exact, for 10 classes: a new model adds its number, counted by hand or taken from its paper.
PARAMETERS = {
    "alexnet": 56_909_194,
    "alexnet_single": 57_044_810,
    "alexnet_cifar": 3_172_554,
    "vgg11": 128_807_306,
    "vgg13": 128_991_818,
    "vgg16": 134_301_514,
    "vgg19": 139_611_210,
    "vgg11_bn": 128_812_810,
    "vgg13_bn": 128_997_706,
    "vgg16_bn": 134_309_962,
    "vgg19_bn": 139_622_218,
    "mlp": 1_841_162,
    "cifarnet": 1_971_640,
    "convnet4": 89_578,
    "lenet": 264_806,
    "plain18": 11_007_818,
    "plain34": 21_115_978,
    "resnet18": 11_181_642,
    "resnet34": 21_289_802,
    "resnet50": 23_528_522,
    "resnet101": 42_520_650,
    "resnet152": 58_164_298,
    "plain20": 269_722,
    "plain32": 464_154,
    "plain44": 658_586,
    "plain56": 853_018,
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
}

NAMES = list_models()
# Deep, or made for large images: tracing and compiling takes tens of seconds each, so these wait for `-m slow`.
DEEP = {"plain32", "plain44", "plain56", "resnet32", "resnet44", "resnet56", "resnet110"}
WITH_NUMBERS = [
    pytest.param(name, marks=pytest.mark.slow if name in DEEP or model_info(name).input_size > 64 else ())
    for name in NAMES
]


def side_of(name: str) -> int:
    """The side of the test images: what the model is meant for, or 64 pixels where it takes them."""
    return min(model_info(name).input_size, 64)


def options_for(name: str) -> dict[str, Any]:
    """Options that make a model take images of that side."""
    return {"image_size": side_of(name)} if "image_size" in model_info(name).options else {}


def batch(name: str, images: int = 2, channels: int = 3) -> np.ndarray:
    side = side_of(name)
    return np.random.default_rng(0).random((images, side, side, channels), dtype=np.float32)


@cache
def abstract(name: str, **options: Any) -> nnx.Module:
    """The model without its numbers; tests do not change it."""
    return nnx.eval_shape(lambda: create_model(name, **options))


def outputs(model: nnx.Module, images: Any) -> tuple[Any, Any]:
    """Shapes and types of logits and features."""
    graph, state = nnx.split(model)
    return jax.eval_shape(
        lambda state, images: (nnx.merge(graph, state)(images), nnx.merge(graph, state).features(images)), state, images
    )


@dataclass(frozen=True)
class Passes:
    """A model with small images, and what one pass of it in train mode and one in eval mode gave.

    Attributes:
        name: of the model.
        model: the network, in eval mode.
        train: logits in train mode.
        evaluation: logits in eval mode.
        gradient: of each parameter in train mode, by path: whether all of it is finite, whether some of it is not 0.
        moved: which other arrays (statistics, random keys) the pass changed, by path, in train and in eval mode.
    """

    name: str
    model: nnx.Module
    train: np.ndarray
    evaluation: np.ndarray
    gradient: dict[str, tuple[bool, bool]]
    moved: dict[str, dict[tuple, bool]]


# One model at a time: large ones fill the memory.
@pytest.fixture(scope="module", params=WITH_NUMBERS)
def passes(request: pytest.FixtureRequest) -> Passes:
    name = request.param
    model = create_model(name, **options_for(name))
    images, logits, moved = batch(name, 4), {}, {}
    gradient: dict[str, tuple[bool, bool]] = {}
    for mode in ("train", "eval"):
        getattr(model, mode)()
        graph, params, rest = nnx.split(model, nnx.Param, ...)

        def loss(params: Any, graph: Any = graph, rest: Any = rest) -> tuple[jax.Array, tuple[jax.Array, Any]]:
            network = nnx.merge(graph, params, rest, copy=True)
            logits = network(images)
            return jnp.square(logits - 1).sum(), (logits, nnx.state(network, nnx.Not(nnx.Param)))

        if mode == "train":
            of_params, (given, after) = jax.jit(jax.grad(loss, has_aux=True))(params)
            for path, leaf in jax.tree.leaves_with_path(of_params):
                gradient[jax.tree_util.keystr(path)] = (bool(np.isfinite(leaf).all()), bool(np.any(np.asarray(leaf))))
            del of_params
        else:
            _, (given, after) = jax.jit(loss)(params)
        logits[mode], moved[mode] = np.asarray(given), changes(rest, after)
    return Passes(name, model, logits["train"], logits["eval"], gradient, moved)


def changes(before: Any, after: Any) -> dict[tuple, bool]:
    """Which arrays of a state differ, by path."""

    def numbers(variable: Any) -> np.ndarray:
        x = variable[...]
        return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

    pairs = zip(nnx.to_flat_state(before), nnx.to_flat_state(after), strict=True)
    return {path: bool(np.any(numbers(old) != numbers(new))) for (path, old), (_, new) in pairs}


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_parameters_is_exact(name: str) -> None:
    params = jax.tree.leaves(nnx.state(abstract(name), nnx.Param))
    assert sum(leaf.size for leaf in params) == PARAMETERS[name]
    assert {leaf.dtype for leaf in params} == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", NAMES)
def test_one_logit_per_class(name: str) -> None:
    side = model_info(name).input_size
    logits, features = outputs(abstract(name), jax.ShapeDtypeStruct((3, side, side, 3), jnp.float32))
    assert (logits.shape, logits.dtype) == ((3, 10), jnp.float32)
    assert features.ndim == 2 and features.shape[0] == 3


@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_without_classes_the_network_gives_its_features(name: str) -> None:
    whole, headless = (abstract(name, num_classes=n, **options_for(name)) for n in (10, 0))
    _, expected = outputs(whole, batch(name))
    given, features = outputs(headless, batch(name))
    assert given == features == expected
    assert headless.head is None
    # The head is built last, so that the weights below it do not depend on the classes: what is left is the same.
    paths, fewer = (set(nnx.to_flat_state(nnx.state(model, nnx.Param)).paths) for model in (whole, headless))
    assert {path[0] for path in paths - fewer} == {"head"} and not fewer - paths


@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_other_numbers_of_channels_and_classes_are_taken(name: str) -> None:
    model = abstract(name, in_channels=1, num_classes=7, **options_for(name))
    logits, _ = outputs(model, batch(name, 2, channels=1))
    assert logits.shape == (2, 7)


@pytest.mark.parametrize("name", WITH_NUMBERS)
def test_bfloat16_is_the_type_of_computing_alone(name: str) -> None:
    model = abstract(name, dtype="bfloat16", **options_for(name))
    floats = [leaf for leaf in jax.tree.leaves(nnx.state(model)) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    logits, features = outputs(model, batch(name))
    assert logits.dtype == features.dtype == jnp.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_every_model_has_a_summary_and_the_options_that_all_have(name: str) -> None:
    info = model_info(name)
    assert info.name == name
    assert info.summary.endswith(".")
    assert {"num_classes": 10, "in_channels": 3, "dtype": None}.items() <= info.options.items()


def test_logits_are_finite_and_tell_images_apart(passes: Passes) -> None:
    for logits in (passes.train, passes.evaluation):
        assert np.isfinite(logits).all()
        assert np.ptp(logits, axis=0).min() > 0


def test_every_parameter_gets_a_gradient(passes: Passes) -> None:
    assert len(passes.gradient) == len(jax.tree.leaves(nnx.state(passes.model, nnx.Param)))
    assert [path for path, (finite, some) in passes.gradient.items() if not (finite and some)] == []


def test_training_and_evaluation_differ_only_where_they_should(passes: Passes) -> None:
    in_train, in_eval = passes.moved["train"], passes.moved["eval"]
    if in_train:  # statistics of batches, or random keys
        assert np.any(passes.train != passes.evaluation)
    else:
        # The same arithmetic; two programs, which XLA may fuse otherwise.
        np.testing.assert_allclose(passes.train, passes.evaluation, rtol=1e-5, atol=1e-6)
    # A pass in train mode moves running statistics, and counts how often a random key was used; no more than that.
    assert {path for path, moved in in_train.items() if moved} == {p for p in in_train if p[-1] in MOVES}
    assert not any(in_eval.values())


MOVES = {"mean", "var", "count"}


def test_bfloat16_computes_what_float32_computes(passes: Passes) -> None:
    options = options_for(passes.name)
    model = nnx.eval_shape(lambda: create_model(passes.name, dtype="bfloat16", **options))
    nnx.update(model, nnx.state(passes.model))
    model.eval()
    graph, state = nnx.split(model)
    logits = jax.jit(lambda state, images: nnx.merge(graph, state)(images))(state, batch(passes.name, 4))
    expected = passes.evaluation
    # Every layer rounds to 8 bits; the errors of tens of layers add up like a random walk.
    atol = 0.06 * np.abs(expected).max()
    np.testing.assert_allclose(np.asarray(logits, np.float32), expected, rtol=0, atol=atol)


def test_equal_rngs_build_the_golden_network(passes: Passes, request: pytest.FixtureRequest) -> None:
    golden, logits = json.loads(GOLDEN.read_text()), passes.evaluation.astype(float)
    if request.config.getoption("--renew-golden"):
        golden[passes.name] = [[float(f"{value:.6g}") for value in row] for row in logits]
        text = ",\n".join(f' "{key}": {json.dumps(golden[key])}' for key in sorted(golden))
        GOLDEN.write_text(f"{{\n{text}\n}}\n")
    assert passes.name in golden, "no golden logits; do add them with --renew-golden (see the top of this file)"
    # Across versions and machines sums are rounded otherwise.
    expected = np.array(golden[passes.name])
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())


def test_other_rngs_build_another_network(passes: Passes) -> None:
    other = create_model(passes.name, rngs=nnx.Rngs(4), **options_for(passes.name))
    ours, theirs = (jax.tree.leaves(nnx.state(model, nnx.Param)) for model in (passes.model, other))
    assert any(np.any(a != b) for a, b in zip(ours, theirs, strict=True))
