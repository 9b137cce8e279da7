"""Residual networks: the numbers of the paper and of the field's libraries, and what their options do."""

import json
import warnings
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

from cnnlab.layers import Conv, StochasticDepth
from cnnlab.models import ResNet, create_model, list_models, model_info
from cnnlab.training import TrainState, make_train_step

# Two float32 formulas, relative to the largest number; a network of six layers with results rounded to 8 bits.
FLOAT32, BFLOAT16 = 1e-5, 2**-4

# At 1000 classes: as published by torchvision.
PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
# In thousands of millions, for one image of 224 pixels: torchvision's table.
MULTIPLY_ADDS = {"resnet18": 1.81, "resnet34": 3.66, "resnet50": 4.09, "resnet101": 7.80, "resnet152": 11.51}
DEEP = ("resnet101", "resnet152")  # seconds to trace

# By hand: the three 1x1 convolutions and BatchNorms of the projections in the networks of basic blocks.
PROJECTIONS = (64 * 128 + 2 * 128) + (128 * 256 + 2 * 256) + (256 * 512 + 2 * 512)


@cache
def abstract(name: str, **options: Any) -> nnx.Module:
    """The network without numbers."""
    return nnx.eval_shape(lambda: create_model(name, **options))


def count(name: str, **options: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(abstract(name, **options), nnx.Param)))


def output_shape(model: nnx.Module, side: int, method: str = "__call__") -> tuple[int, ...]:
    graph, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
    return jax.eval_shape(lambda state, x: getattr(nnx.merge(graph, state), method)(x), state, images).shape


def tiny(block: Any = "basic", depths: Any = (1, 1), num_classes: int = 3, **options: Any) -> ResNet:
    """A small network with all the parts of a large one."""
    options = {"width": 4, "stem": "cifar", "rngs": nnx.Rngs(0), **options}
    return ResNet(block, depths, num_classes, **options)


def images(count: int = 4, side: int = 8) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).random((count, side, side, 3)), jnp.float32)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_number_of_parameters_is_that_of_the_references(name: str) -> None:
    assert count(name, num_classes=1000) == PARAMETERS[name]


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("resnet18", {"stem": "cifar"}, 11_173_962),
        ("resnet34", {"stem": "cifar"}, 21_282_122),
        ("plain18", {"num_classes": 1000}, 11_689_512 - PROJECTIONS),
        ("plain34", {"num_classes": 1000}, 21_797_672 - PROJECTIONS),
        ("resnet34", {"num_classes": 1000, "shortcut": "A"}, 21_797_672 - PROJECTIONS),
        # Two dense layers with biases per block: 2 c c / 16 weights, c / 16 + c biases.
        (
            "resnet18",
            {"num_classes": 1000, "squeeze_excite": True},
            11_689_512 + sum(2 * (2 * c * c // 16 + c // 16 + c) for c in (64, 128, 256, 512)),
        ),
        ("resnet50", {"num_classes": 1000, "stride_in": "1x1"}, 25_557_032),
        ("resnet18", {"num_classes": 1000, "in_channels": 1}, 11_689_512 - 2 * 7 * 7 * 64),
    ],
)
def test_options_change_the_number_of_parameters_as_counted_by_hand(name: str, options: Any, parameters: int) -> None:
    assert count(name, **options) == parameters


def multiply_adds(model: nnx.Module, monkeypatch: pytest.MonkeyPatch) -> float:
    """Multiply-adds of convolutions and head for one image of 224 pixels, in thousands of millions."""
    head: Any = model.head  # pyright: ignore[reportAttributeAccessIssue]
    total = [head.in_features * head.out_features]

    def counted(self: Conv, inputs: jax.Array) -> jax.Array:
        outputs = nnx.Conv.__call__(self, inputs)
        total.append(outputs[0, ..., 0].size * self.kernel[...].size)
        return outputs

    monkeypatch.setattr(Conv, "__call__", counted)
    assert output_shape(model, 224) == (2, 1000)
    return sum(total) / 1e9


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in DEEP else []) for n in MULTIPLY_ADDS])
def test_the_multiply_adds_are_those_of_the_references(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert multiply_adds(abstract(name, num_classes=1000), monkeypatch) == pytest.approx(MULTIPLY_ADDS[name], abs=0.01)


def test_with_the_stride_in_the_first_convolution_resnet50_has_the_multiply_adds_of_the_paper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = abstract("resnet50", num_classes=1000, stride_in="1x1")
    assert multiply_adds(model, monkeypatch) == pytest.approx(3.8, abs=0.06)


@pytest.mark.parametrize(("name", "stem", "side"), [("resnet18", "imagenet", 224), ("resnet50", "cifar", 32)])
def test_features_are_the_channels_of_the_last_stage(name: str, stem: str, side: int) -> None:
    features = {"resnet18": 512, "resnet50": 2048}[name]
    assert output_shape(abstract(name, stem=stem), side, "features") == (2, features)
    assert output_shape(abstract(name, stem=stem, num_classes=0), side) == (2, features)


@pytest.mark.parametrize("stem", ["imagenet", "cifar"])
def test_the_network_is_stem_stages_mean_and_head(stem: str) -> None:
    model, side = tiny("bottleneck", (1, 2), stem=stem), {"imagenet": 64, "cifar": 16}[stem]
    model.eval()
    x = images(2, side)

    def written_out(model: Any, x: jax.Array) -> jax.Array:
        stride, pad = (2, 3) if stem == "imagenet" else (1, 1)
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(
            x, model.conv1.kernel[...], (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=numbers
        )
        x = jnp.maximum(model.bn1(x), 0)
        if stem == "imagenet":
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), ((0, 0), (1, 1), (1, 1), (0, 0)))
        assert x.shape == (2, 16, 16, 4)
        x = model.layer1[0](x)
        assert x.shape == (2, 16, 16, 16)
        x = model.layer2[1](model.layer2[0](x))
        assert x.shape == (2, 8, 8, 32)
        return x.mean((1, 2)) @ model.head.kernel[...] + model.head.bias[...][None]

    expected, logits = (np.asarray(nnx.jit(f)(model, x)) for f in (written_out, lambda model, x: model(x)))
    np.testing.assert_allclose(logits, expected, rtol=0, atol=FLOAT32 * np.abs(expected).max())


def test_an_image_below_64_pixels_that_meets_the_imagenet_stem_gives_one_warning() -> None:
    model = nnx.eval_shape(lambda: tiny(stem="imagenet"))
    for method in ("__call__", "features"):
        with pytest.warns(UserWarning, match="got 32 x 32; do build the network with stem='cifar'") as caught:
            output_shape(model, 32, method)
        assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output_shape(model, 64)
        output_shape(nnx.eval_shape(lambda: tiny(stem="cifar")), 32)


@pytest.mark.parametrize(
    "options",
    [{"shortcut": "C", "squeeze_excite": True}, {"skip": False}, {"block": "bottleneck"}],
    ids=str,
)
def test_every_parameter_gets_a_gradient(options: dict) -> None:
    # Hidden layers of squeeze and excitation want some neurons: with one, ReLU may silence it for all images.
    model = tiny(**{"width": 32 if "squeeze_excite" in options else 4, **options})
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def gradient(params: Any) -> Any:
        return jax.grad(lambda p: jnp.square(nnx.merge(graph, p, rest, copy=True)(images(8)) - 1).sum())(params)

    for path, leaf in jax.tree.leaves_with_path(gradient(params)):
        assert np.isfinite(leaf).all(), path
        assert np.any(np.asarray(leaf) != 0), path


@pytest.mark.slow
def test_a_training_step_lowers_the_loss_and_moves_the_running_statistics() -> None:
    tx = optax.sgd(0.05, momentum=0.9)
    state = TrainState.create(tiny(stochastic_depth=0.2, width=8), tx)
    rng = np.random.default_rng(1)
    batch = {"image": rng.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8), "label": np.arange(12, dtype=np.int32) % 3}
    step, before = make_train_step(tx), np.asarray(state.extra["bn1"]["mean"])
    losses = []
    for _ in range(25):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    assert losses[0] > 0.8 and np.mean(losses[-5:]) < 0.5 * losses[0]
    assert np.any(np.asarray(state.extra["bn1"]["mean"]) != before)


def test_evaluation_leaves_the_running_statistics_alone_and_training_moves_all_of_them() -> None:
    model = tiny()
    before = jax.tree.map(np.asarray, nnx.state(model, nnx.BatchStat))
    model.eval()
    nnx.jit(lambda model, x: model(x))(model, images())
    for a, b in zip(*map(jax.tree.leaves, (before, nnx.state(model, nnx.BatchStat))), strict=True):
        np.testing.assert_array_equal(a, b)
    model.train()
    nnx.jit(lambda model, x: model(x))(model, images())
    for a, b in zip(*map(jax.tree.leaves, (before, nnx.state(model, nnx.BatchStat))), strict=True):
        assert np.all(a != b)


@pytest.mark.parametrize("dtype", ["bfloat16", jnp.bfloat16])
def test_bfloat16_computes_in_bfloat16_with_parameters_and_statistics_in_float32(dtype: Any) -> None:
    exact, rounded = tiny(), tiny(dtype=dtype)
    exact.eval(), rounded.eval()
    run = nnx.jit(lambda a, b, x: (a(x), b(x)))
    expected, logits = run(exact, rounded, images())
    assert logits.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        logits.astype(jnp.float32), expected, rtol=0, atol=BFLOAT16 * float(jnp.abs(expected).max())
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(rounded))} == {jnp.dtype("float32")}


def test_the_drop_rate_grows_linearly_with_depth_and_zero_needs_no_random_state() -> None:
    model = tiny(depths=(2, 2), stochastic_depth=0.2)
    rates = [block.stochastic_depth.rate for stage in (model.layer1, model.layer2) for block in stage]
    np.testing.assert_allclose(rates, [0.05, 0.1, 0.15, 0.2], rtol=1e-12)
    assert all(isinstance(block.stochastic_depth, StochasticDepth) for block in model.layer2)
    assert not jax.tree.leaves(nnx.state(tiny(), nnx.RngState))


def test_the_head_starts_uniform_with_a_bias_of_zero() -> None:
    head: Any = tiny(num_classes=500, depths=(1,), width=64).head
    kernel = np.asarray(head.kernel[...])
    assert kernel.shape == (64, 500)
    assert 0.99 / 8 < np.abs(kernel).max() <= 1 / 8  # 1 / sqrt(64)
    assert kernel.std() == pytest.approx(1 / 8 / np.sqrt(3), rel=0.02)
    assert not np.any(np.asarray(head.bias[...]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "wide"}, "Expected block to be basic or bottleneck, got 'wide'; do choose"),
        ({"stem": "mnist"}, "Expected stem to be imagenet or cifar, got 'mnist'; do choose"),
        ({"shortcut": "b"}, "Expected shortcut to be A, B or C, got 'b'; do choose"),
        ({"block": "bottleneck", "stride_in": "5x5"}, "Expected stride_in to be 3x3 or 1x1, got '5x5'; do choose"),
        ({"stride_in": "5x5"}, "Expected stride_in to be 3x3 or 1x1, got '5x5'; do choose"),
        ({"stride_in": "1x1"}, "Expected stride_in of bottleneck blocks only, got '1x1'; do leave it out"),
        ({"depths": (1, 0)}, r"Expected at least one block in each stage, got depths=\(1, 0\); do leave out"),
        ({"depths": ()}, r"Expected at least one block in each stage, got depths=\(\)"),
        ({"skip": False, "stochastic_depth": 0.1}, "Expected stochastic_depth 0 in a block without a skip connection"),
        ({"stochastic_depth": -0.1}, "Expected a drop rate in"),
    ],
)
def test_wrong_options_are_explained(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


def test_the_builders_have_the_names_of_their_models_and_options_of_plain_values() -> None:
    names = [name for name in list_models(family="resnet") if model_info(name).input_size == 224]
    assert set(names) == {*PARAMETERS, "plain18", "plain34"}
    for name in names:
        info = model_info(name)
        assert info.build.__name__ == name
        assert (info.input_size, "1512.03385" in info.paper) == (224, True)
        assert json.loads(json.dumps(info.options)) == info.options
        assert ("stride_in" in info.options) == (name in ("resnet50", "resnet101", "resnet152"))
        assert ("shortcut" in info.options) == ("stochastic_depth" in info.options) == name.startswith("resnet")


def test_a_builder_refuses_what_its_network_has_no_choice_in() -> None:
    info = model_info("plain18")
    for option, value in (("shortcut", "A"), ("skip", True), ("width", 8)):  # arguments of the class, all of them
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{option}'"):
            info.build(rngs=nnx.Rngs(0), **{option: value})
    with pytest.raises(TypeError, match="missing a required .*'rngs'"):
        info.build()
