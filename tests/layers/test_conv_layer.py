"""The layer `Conv`: parameters, results and pooling as those of `flax.nnx.Conv` and `nnx.max_pool`, exactly."""

from functools import partial
from random import Random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import assume, given, settings
from jax import lax

from cnnlab.layers import Conv, conv_general_dilated, max_pool
from tests.layers import lax_oracle as oracle
from tests.layers.drawn import FLOATS, assert_exact, seeds, two, whole


def assert_equal(ours: Any, theirs: Any) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def integers(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
    """Numbers so small that sums of some of them are often equal."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.integers(-1, 2, shape), jnp.float32) for shape in shapes]


def whole_numbers(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, **_: Any) -> jax.Array:
    seed = int(jax.random.key_data(key).ravel()[-1])  # NumPy compiles nothing
    return jnp.asarray(np.random.default_rng(seed).integers(-2, 3, shape), dtype)


WHOLE = {"kernel_init": whole_numbers, "bias_init": whole_numbers}
FEATURES = [(3, 6), (2, 16), (17, 4), (1, 20)]
LAYERS = {
    "same": {},
    "valid": {"padding": "VALID"},
    "reflect": {"padding": "REFLECT"},
    "pairs": {"padding": ((0, 2), (1, 0))},
    "strides": {"strides": (2, 1)},
    "groups": {"feature_group_count": 2},
    "dilated kernel": {"kernel_dilation": 2},
    "dilated input": {"input_dilation": 2, "padding": 1},
    "no bias": {"use_bias": False, "padding": "VALID"},
    "mask": {"mask": np.arange(3 * 3 * 4 * 6).reshape(3, 3, 4, 6) % 2.0},
    "precision": {"precision": lax.Precision.HIGHEST},
    "bfloat16, float32 result": {"dtype": jnp.bfloat16, "preferred_element_type": jnp.float32},
}


@pytest.mark.parametrize("options", LAYERS.values(), ids=LAYERS.keys())
def test_the_layer_is_the_layer_of_flax_and_pools_like_it(options: dict) -> None:
    if "mask" in options:
        options = {**options, "mask": jnp.asarray(options["mask"])}
    ours = Conv(4, 6, 3, **WHOLE, **options, rngs=nnx.Rngs(0))
    theirs = nnx.Conv(4, 6, (3, 3), **WHOLE, **options, rngs=nnx.Rngs(0))
    (graph, weights), (their_graph, their_weights) = nnx.split(ours), nnx.split(theirs)
    assert_equal(weights, their_weights)
    (inputs,) = integers(5, (2, 8, 8, 4))

    def both_of_ours(images: jax.Array, state: Any) -> Any:
        layer = nnx.merge(graph, state)
        return layer(images), layer.max_pooled(images, (2, 3))

    def both_of_theirs(images: jax.Array, state: Any) -> Any:
        convolved = nnx.merge(their_graph, state)(images)
        return convolved, nnx.max_pool(convolved, (2, 3), (2, 3))

    @jax.jit
    def run(images: jax.Array, state: Any) -> Any:
        functions = (both_of_ours, both_of_theirs)
        if options.get("padding", "SAME") not in ("SAME", "VALID") or options.keys() - {"padding", "use_bias"}:
            return [function(images, state) for function in functions]
        # With the gradients of the pooled layer, by hand because they are wanted for both of its arguments.
        return [
            (function(images, state), jax.vjp(lambda *a, f=function: f(*a)[1].sum(), images, state)[1](jnp.ones(())))
            for function in functions
        ]

    assert_equal(*run(inputs, weights))


@settings(max_examples=12)
@given(seeds)
def test_the_pooled_layer_is_convolution_bias_and_maximum_of_lax(seed: int) -> None:
    random = Random(seed)
    batch, kernel_size = (random.randint(1, 2), *two(random, 1, 9)), two(random, 1, 4)
    groups, strides = random.choice([1, 1, 2, 5]), random.choice([(1, 1), (1, 1), (2, 1), (2, 2)])
    in_features, out_features = (n * groups for n in random.choice(FEATURES if groups == 1 else [(3, 4), (1, 2)]))
    window, padding = random.choice([(1, 1), (2, 2), (2, 3)]), random.choice(["SAME", "VALID"])
    dtype = random.choice(FLOATS[:2])
    options = {"padding": padding, "feature_group_count": groups, "dtype": dtype}
    layer = Conv(in_features, out_features, kernel_size, strides, **options, **WHOLE, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    pads = oracle.pads_of(batch[1:], kernel_size, strides, padding)
    sides = [(n + sum(p) - k) // s + 1 for n, p, k, s in zip(batch[1:], pads, kernel_size, strides, strict=True)]
    pooled = [n // k for n, k in zip(sides, window, strict=True)]
    assume(min(pooled) > 0)
    direction, images = whole(dtype, (batch[0], *pooled, out_features), (*batch, in_features))

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})  # it runs for a millisecond
    def run(direction: jax.Array, images: jax.Array, state: Any) -> Any:
        value, pull = jax.vjp(lambda x, s: nnx.merge(graph, s).max_pooled(x, window), images, state)
        of_images, of_state = pull(direction)
        return value, of_images, of_state["kernel"][...], of_state["bias"][...]

    found = run(direction, images, state)
    assert [x.dtype for x in found] == [dtype, dtype, jnp.float32, jnp.float32]
    kernel, bias = (np.asarray(state[name][...]) for name in ("kernel", "bias"))
    convolve = {"padding": pads, "strides": strides, "groups": groups}
    unused = np.zeros((batch[0], *sides, out_features))
    convolved = oracle.convolution(unused, images, kernel, **convolve)[0] + bias
    value, pulled = oracle.pooling(direction, convolved, window=window, strides=window, padding=((0, 0), (0, 0)))
    gradients = oracle.convolution(pulled, images, kernel, **convolve)[1:]
    ours = [np.asarray(x, np.float64) for x in found]
    assert_exact(ours, [value, *gradients, pulled.sum((0, 1, 2))])


def test_one_image_without_a_batch_pools_like_a_batch_of_one() -> None:
    layer = Conv(3, 4, 3, padding="VALID", **WHOLE, rngs=nnx.Rngs(0))
    (images,) = integers(0, (1, 8, 8, 3))
    alone, together = jax.jit(lambda x: (layer.max_pooled(x[0], 2), layer.max_pooled(x, 2)[0]))(images)
    np.testing.assert_array_equal(alone, together)


def test_a_lowering_that_the_user_passes_is_used_with_pooling_too() -> None:
    calls = []

    def counted(*arguments: Any, **options: Any) -> jax.Array:
        calls.append(None)
        return conv_general_dilated(*arguments, **options)

    layer = Conv(3, 4, 3, padding="VALID", conv_general_dilated=counted, **WHOLE, rngs=nnx.Rngs(0))
    (images,) = integers(0, (1, 8, 8, 3))
    pooled, expected = jax.jit(lambda x: (layer.max_pooled(x, 2), max_pool(layer(x), 2)))(images)
    np.testing.assert_array_equal(pooled, expected)
    assert len(calls) == 2


@pytest.mark.parametrize("kernel_size", [3, (5, 2)])
def test_initial_weights_are_those_of_flax_for_the_same_rngs(kernel_size: Any) -> None:
    options = {"bias_init": nnx.initializers.normal(), "rngs": nnx.Rngs(3)}
    ours = Conv(3, 4, kernel_size, **options)
    pair = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    theirs = nnx.Conv(3, 4, pair, **{**options, "rngs": nnx.Rngs(3)})
    assert_equal(nnx.state(ours), nnx.state(theirs))
    assert nnx.to_pure_dict(nnx.state(ours)).keys() == {"kernel", "bias"}
