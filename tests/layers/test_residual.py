"""Residual blocks against the paper's formulas written in NumPy, in float64."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.layers import BasicBlock, Bottleneck, ResidualBlock, identity_shortcut

# Up to three convolutions of some hundred terms in float32, relative to the largest number.
FLOAT32 = 1e-5
# The same with every intermediate result rounded to 8 bits.
BFLOAT16 = 2**-5

STRIDES = {"basic": (2, 1), "3x3": (1, 2, 1), "1x1": (2, 1, 1)}  # of the convolutions of a block that has stride 2


def block(kind: str, in_features: int, features: int, **options: Any) -> ResidualBlock:
    """A block in which no number has its initial value."""
    rngs = nnx.Rngs(0)
    if kind == "basic":
        module = BasicBlock(in_features, features, rngs=rngs, **options)
    else:
        module = Bottleneck(in_features, features, stride_in=kind, rngs=rngs, **options)
    rng = np.random.default_rng(0)
    randomized = jax.tree.map(
        lambda a: jnp.asarray(rng.uniform(0.5, 1.5, a.shape) * rng.choice([-1, 1], a.shape), jnp.float32),
        nnx.state(module, nnx.Param),
    )
    nnx.update(module, randomized)
    positive = jax.tree.map(
        lambda a: jnp.asarray(rng.uniform(0.5, 1.5, a.shape), jnp.float32), nnx.state(module, nnx.BatchStat)
    )
    nnx.update(module, positive)
    return module


def images(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


def run(module: ResidualBlock, x: jax.Array) -> jax.Array:
    return nnx.jit(lambda module, x: module(x))(module, x)


def numpy_convolution(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    pad = kernel.shape[0] // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    cut = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("bijchw,hwco->bijo", cut, kernel, optimize=True)


def numpy_norm(x: np.ndarray, norm: dict[str, np.ndarray], train: bool) -> np.ndarray:
    mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2))) if train else (norm["mean"], norm["var"])
    return norm["scale"] * (x - mean) / np.sqrt(var + 1e-5) + norm["bias"]


def numpy_residual(weights: dict, x: np.ndarray, strides: tuple[int, ...], train: bool) -> np.ndarray:
    for i, stride in enumerate(strides, 1):
        x = np.maximum(x, 0) if i > 1 else x
        x = numpy_norm(numpy_convolution(x, weights[f"conv{i}"]["kernel"], stride), weights[f"bn{i}"], train)
    return x


def numpy_shortcut(weights: dict, x: np.ndarray, stride: int, features: int, train: bool) -> np.ndarray:
    if weights.get("downsample"):
        x = numpy_convolution(x, weights["downsample"][0]["kernel"], stride)
        return numpy_norm(x, weights["downsample"][1], train)
    kept = x[:, ::stride, ::stride]
    padded = np.zeros((*kept.shape[:3], features))
    padded[..., : x.shape[-1]] = kept
    return padded


def in_float64(module: nnx.Module) -> dict:
    return jax.tree.map(lambda a: np.asarray(a, np.float64), nnx.to_pure_dict(nnx.state(module)))


def assert_close(ours: Any, expected: np.ndarray, tolerance: float = FLOAT32) -> None:
    ours = np.asarray(ours, np.float64)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("kind", STRIDES)
@pytest.mark.parametrize("shortcut", ["A", "B", "C", None])
def test_a_block_that_changes_the_shape_is_the_formula(kind: str, shortcut: Any, train: bool) -> None:
    features = 4 if kind == "basic" else 1
    options = {"skip": False} if shortcut is None else {"shortcut": shortcut}
    module = block(kind, 3, features, stride=2, **options)
    module.train() if train else module.eval()
    weights, x = in_float64(module), images(2, 7, 6, 3)  # an odd and an even side
    expected = numpy_residual(weights, np.asarray(x, np.float64), STRIDES[kind], train)
    if shortcut is not None:
        assert bool(weights.get("downsample")) == (shortcut != "A")
        expected = expected + numpy_shortcut(weights, np.asarray(x, np.float64), 2, 4, train)
    assert expected.shape == (2, 4, 3, 4)
    assert (expected < 0).any()
    assert_close(run(module, x), np.maximum(expected, 0))


@pytest.mark.parametrize("kind", ["basic", "3x3"])
@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
def test_a_block_that_keeps_the_shape_adds_its_input_but_for_shortcut_c(kind: str, shortcut: Any) -> None:
    module = block(kind, 4, 4 if kind == "basic" else 1, shortcut=shortcut)
    module.eval()
    weights, x = in_float64(module), images(2, 5, 4, 4)
    assert bool(weights.get("downsample")) == (shortcut == "C")
    residual = numpy_residual(weights, np.asarray(x, np.float64), (1,) * (2 if kind == "basic" else 3), False)
    carried = numpy_shortcut(weights, np.asarray(x, np.float64), 1, 4, False)
    assert_close(run(module, x), np.maximum(residual + carried, 0))


@pytest.mark.parametrize(("stride", "features"), [(1, 3), (2, 3), (1, 5), (2, 6), (3, 4)])
def test_the_identity_shortcut_takes_every_nth_pixel_and_adds_channels_of_zeros(stride: int, features: int) -> None:
    x = images(2, 7, 6, 3)
    y = np.asarray(identity_shortcut(x, stride, features))
    assert y.shape == (2, -(-7 // stride), -(-6 // stride), features)
    for i, j in itertools.product(range(y.shape[1]), range(y.shape[2])):
        np.testing.assert_array_equal(y[:, i, j, :3], x[:, i * stride, j * stride])
    assert not y[..., 3:].any()


@pytest.mark.parametrize("kind", ["basic", "3x3"])
@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
def test_the_plain_twin_is_the_block_without_what_belongs_to_its_skip_connection(kind: str, shortcut: Any) -> None:
    features = 8 if kind == "basic" else 2
    whole = block(kind, 4, features, stride=2, shortcut=shortcut)
    plain = block(kind, 4, features, stride=2, shortcut=shortcut, skip=False)
    weights = nnx.to_pure_dict(nnx.state(whole))
    weights.pop("downsample", None)
    assert jax.tree.structure(nnx.to_pure_dict(nnx.state(plain))) == jax.tree.structure(weights)
    nnx.replace_by_pure_dict(state := nnx.state(plain), weights)
    nnx.update(plain, state)
    whole.eval(), plain.eval()
    x = images(2, 6, 6, 4)
    residual, carried, output, of_plain = nnx.jit(lambda a, b, x: (a.residual(x), a.shortcut(x), a(x), b(x)))(
        whole, plain, x
    )
    assert_close(of_plain, np.maximum(residual, 0))
    assert_close(output, np.maximum(np.asarray(residual) + np.asarray(carried), 0))
    assert np.any(output != of_plain)


def test_squeeze_and_excitation_act_on_the_residual_branch_only() -> None:
    module = block("basic", 16, 16, squeeze_excite=True)
    module.eval()
    x = images(2, 4, 4, 16)
    expected = np.asarray(x) + np.asarray(module.squeeze_excite(module.residual(x)))
    assert_close(run(module, x), np.maximum(expected, 0))
    assert np.abs(expected - np.asarray(x + module.residual(x))).max() > 0.1


def test_stochastic_depth_drops_the_residual_branch_of_some_images_and_keeps_the_shortcut() -> None:
    dropping, whole = block("basic", 4, 4, stochastic_depth=0.5), block("basic", 4, 4)
    x = images(16, 4, 4, 4)
    output, residual = np.asarray(run(dropping, x)), np.asarray(nnx.jit(lambda m, x: m.residual(x))(whole, x))
    shortcut = np.asarray(x)
    dropped = np.array([np.array_equal(a, b) for a, b in zip(output, np.maximum(shortcut, 0), strict=True)])
    assert 0 < dropped.sum() < 16
    assert_close(output[~dropped], np.maximum(shortcut + 2 * residual, 0)[~dropped])
    dropping.eval(), whole.eval()
    nnx.update(whole, nnx.state(dropping, nnx.BatchStat))
    np.testing.assert_array_equal(run(dropping, x), run(whole, x))


@pytest.mark.parametrize("kind", ["basic", "3x3"])
def test_bfloat16_computes_in_bfloat16_with_parameters_and_statistics_in_float32(kind: str) -> None:
    options = dict(stride=2, squeeze_excite=True, stochastic_depth=0.5)
    exact, rounded = (block(kind, 4, 4, dtype=dtype, **options) for dtype in (None, jnp.bfloat16))
    exact.eval(), rounded.eval()
    x = images(2, 6, 6, 4)
    output, expected = run(rounded, x), np.asarray(run(exact, x))
    assert output.dtype == jnp.bfloat16
    assert_close(output, expected, BFLOAT16)
    numbers = nnx.state(rounded, (nnx.Param, nnx.BatchStat))
    assert {leaf.dtype for leaf in jax.tree.leaves(numbers)} == {jnp.dtype("float32")}


def test_convolutions_start_with_the_variance_of_he_and_no_bias() -> None:
    module = BasicBlock(64, 128, rngs=nnx.Rngs(0))
    kernel = np.asarray(module.conv1.kernel[...])
    assert module.conv1.bias is None
    assert kernel.std() == pytest.approx(np.sqrt(2 / (3 * 3 * 128)), rel=0.02)  # fan out; 73,728 numbers
    assert np.abs(kernel).max() > 3 * kernel.std()  # not cut off


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (BasicBlock, {"shortcut": "D"}, "Expected shortcut to be A, B or C, got 'D'; do choose"),
        (Bottleneck, {"stride_in": 3}, "Expected stride_in to be 3x3 or 1x1, got 3; do choose"),
        (BasicBlock, {"skip": False, "stochastic_depth": 0.1}, "Expected stochastic_depth 0 in a block without a skip"),
        (BasicBlock, {"shortcut": "A"}, "Expected shortcut A to keep or add channels, got 8 in and 4 out; do use B"),
        (BasicBlock, {"stochastic_depth": 1.0}, "Expected a drop rate in"),
    ],
)
def test_wrong_options_are_explained(build: Any, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(8, 4, rngs=nnx.Rngs(0), **options)


def test_a_block_without_a_residual_branch_cannot_be_made() -> None:
    with pytest.raises(TypeError, match=r"abstract class ResidualBlock.*_build_residual"):
        ResidualBlock(3, 4, rngs=nnx.Rngs(0))
