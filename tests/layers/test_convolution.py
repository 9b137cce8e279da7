"""Convolution and convolution with pooling against `jax.lax` in loops, vmap, forward mode; the choice of lowering.

Two kinds of comparison: random normal numbers, where two float32 sums in different order differ by rounding, and
small integers, where every sum is exact in float32, so that ties between maxima are real and results must be equal.
"""

import math
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jax import lax

from cnnlab.layers import conv_general_dilated, conv_max_pool
from cnnlab.layers.block_convolution import choose_block, conv_by_blocks

NHWC = ("NHWC", "HWIO", "NHWC")
# Two float32 sums of up to some thousand terms in different order, relative to the largest number of the result.
FLOAT32 = 1e-5

LENET = {"first": ((2, 32, 32, 3), (5, 5, 3, 6)), "second": ((2, 14, 14, 6), (5, 5, 6, 16))}


def value_and_gradients(function: Callable, *arguments: Any, whole: bool = False) -> tuple[Any, ...]:
    """The value and the gradient towards every argument, for one random direction, in one compiled program."""
    shape = jax.eval_shape(function, *arguments)
    rng = np.random.default_rng(1)
    direction = rng.integers(-2, 3, shape.shape) if whole else rng.standard_normal(shape.shape)

    @jax.jit
    def run(direction: jax.Array, *arguments: Any) -> tuple[Any, ...]:
        value, pull = jax.vjp(function, *arguments)
        return value, *pull(direction)

    return run(jnp.asarray(direction, shape.dtype), *arguments)


def assert_same_size(ours: Any, theirs: Any, tolerance: float) -> None:
    """Every number within `tolerance` times the largest of the expected array."""
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if b.size:
            assert np.abs(a - b).max() <= tolerance * np.abs(b).max()


def assert_equal(ours: Any, theirs: Any) -> None:
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def normal(seed: int, *shapes: tuple[int, ...], dtype: Any = jnp.float32) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def integers(seed: int, *shapes: tuple[int, ...]) -> list[jax.Array]:
    """Numbers so small that sums of some of them are often equal."""
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.integers(-1, 2, shape), jnp.float32) for shape in shapes]


def convolve_with_lax(inputs: jax.Array, kernel: jax.Array, padding: Any = "VALID") -> jax.Array:
    return lax.conv_general_dilated(inputs, kernel, (1, 1), padding, dimension_numbers=NHWC)


def pool_with_lax(images: jax.Array, window: tuple[int, int]) -> jax.Array:
    shape = (1, *window, 1)
    return lax.reduce_window(images, -jnp.inf, lax.max, shape, shape, "VALID")


def convolve(inputs: jax.Array, kernel: jax.Array, padding: Any = "VALID") -> jax.Array:
    return conv_general_dilated(inputs, kernel, (1, 1), padding, dimension_numbers=NHWC)


def convolve_then_pool_with_lax(
    inputs: jax.Array, kernel: jax.Array, padding: Any = "VALID", window: tuple[int, int] = (2, 2)
) -> jax.Array:
    return pool_with_lax(convolve_with_lax(inputs, kernel, padding), window)


def text_for(platform: str, function: Callable, *shapes: tuple[int, ...]) -> str:
    """The program as it is handed to the compiler of a platform (which need not be present)."""
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("name", LENET)
def test_the_convolutions_of_lenet_with_their_pooling_are_exactly_those_of_lax(name: str) -> None:
    inputs, kernel = integers(0, *LENET[name])
    assert_equal(
        value_and_gradients(partial(conv_max_pool, window=2), inputs, kernel, whole=True),
        value_and_gradients(convolve_then_pool_with_lax, inputs, kernel, whole=True),
    )


def test_blocks_need_not_divide_the_image() -> None:
    pool = (2, 3)
    inputs, kernel = integers(3, (2, 11, 9, 2), (3, 2, 2, 3))  # 10 x 9 output pixels with the padding below
    padding = ((1, 0), (0, 1))
    theirs = partial(convolve_then_pool_with_lax, padding=padding, window=pool)
    expected = value_and_gradients(theirs, inputs, kernel, whole=True)
    for p, q in ((4, 2), (3, 7), (11, 2)):  # in windows: the last is higher than the image

        def ours(inputs: jax.Array, kernel: jax.Array, block: Any = (p * pool[0], q * pool[1])) -> jax.Array:
            return conv_by_blocks(inputs, kernel, padding=padding, block=block, pool=pool)

        assert_equal(value_and_gradients(ours, inputs, kernel, whole=True), expected)


@pytest.mark.parametrize(("batch", "dtype"), [(33, jnp.float32), (33, jnp.bfloat16), (300, jnp.float32)])
def test_a_batch_that_is_too_large_for_the_caches_goes_through_in_parts(batch: int, dtype: Any) -> None:
    """Parts of 32, or eight of them; exact, since the numbers are small integers, with the oracle in float32."""
    inputs, kernel = integers(0, (batch, 6, 5, 2), (3, 3, 2, 4))
    ours = partial(conv_by_blocks, padding=((0, 0), (1, 1)), block=(2, 4), pool=(2, 2))
    theirs = partial(convolve_then_pool_with_lax, padding=((0, 0), (1, 1)))
    found = value_and_gradients(ours, inputs.astype(dtype), kernel.astype(dtype), whole=True)
    assert {x.dtype for x in found} == {jnp.dtype(dtype)}
    assert_equal([x.astype(jnp.float32) for x in found], value_and_gradients(theirs, inputs, kernel, whole=True))
    text = text_for("cpu", ours, inputs.shape, kernel.shape)
    assert text.count("stablehlo.dot_general") == (2 if batch == 33 else 8)


@pytest.mark.parametrize(
    "options",
    [
        {"feature_group_count": 2},
        {"strides": (2, 1), "rhs_dilation": (2, 2), "feature_group_count": 4},
        {"preferred_element_type": jnp.float32},
        {"batch_group_count": 2},
        {"precision": lax.Precision.HIGHEST},
    ],
    ids=str,
)
def test_what_no_lowering_of_ours_can_do_is_left_to_lax(options: dict) -> None:
    options = {"strides": (1, 1), "padding": "SAME", "dimension_numbers": NHWC, **options}
    shapes = (2, 9, 7, 4), (3, 3, 4 // options.get("feature_group_count", 1), 8)
    renamed = {("window_strides" if name == "strides" else name): value for name, value in options.items()}
    programs = [
        text_for("cpu", jax.grad(lambda x, k, f=function: jnp.square(f(x, k)).sum(), (0, 1)), *shapes)
        for function in (partial(conv_general_dilated, **options), partial(lax.conv_general_dilated, **renamed))
    ]
    assert programs[0] == programs[1]
    assert "stablehlo.convolution" in programs[0]


@pytest.mark.parametrize(
    "options",
    [
        {"strides": (2, 2)},
        {"strides": (1, 3), "padding": ((2, 0), (1, 1))},
        {"strides": (2, 3), "padding": "VALID", "rhs_dilation": (2, 1)},
        {"lhs_dilation": (2, 1), "padding": ((0, 0), (1, 2))},
        {"rhs_dilation": (1, 2)},
    ],
    ids=str,
)
def test_strides_and_dilations_give_what_lax_gives_with_named_padding_too(options: dict) -> None:
    options = {"strides": (1, 1), "padding": "SAME", "dimension_numbers": NHWC, **options}
    renamed = {("window_strides" if name == "strides" else name): value for name, value in options.items()}
    arrays = normal(0, (2, 9, 7, 4), (3, 3, 4, 8))
    ours = value_and_gradients(partial(conv_general_dilated, **options), *arrays)
    theirs = value_and_gradients(partial(lax.conv_general_dilated, **renamed), *arrays)
    assert_same_size(ours, theirs, FLOAT32)


def test_pooled_convolution_can_be_exported_for_any_number_of_images() -> None:
    images, kernel = normal(0, *LENET["first"])
    (batch,) = jax.export.symbolic_shape("b")
    like = jax.ShapeDtypeStruct((batch, *images.shape[1:]), images.dtype)
    exported = jax.export.export(jax.jit(partial(conv_max_pool, window=2)))(like, kernel)
    assert_same_size(exported.call(images, kernel), convolve_then_pool_with_lax(images, kernel), FLOAT32)


def test_pooled_convolution_of_two_types_is_refused_as_lax_does() -> None:
    images, kernel = normal(0, *LENET["first"])
    with pytest.raises(TypeError, match="same dtypes"):
        conv_max_pool(images.astype(jnp.bfloat16), kernel, 2)


def test_other_layouts_are_left_to_lax() -> None:
    inputs, kernel = normal(0, (2, 3, 9, 8), (4, 3, 3, 3))
    expected = jax.jit(lambda x, k: lax.conv_general_dilated(x, k, (1, 1), "VALID"))(inputs, kernel)
    assert_equal(jax.jit(lambda x, k: conv_general_dilated(x, k, (1, 1), "VALID"))(inputs, kernel), expected)
    line, taps = normal(0, (2, 9, 3), (3, 3, 4))  # [b, w, c]
    numbers = ("NWC", "WIO", "NWC")
    expected = lax.conv_general_dilated(line, taps, (1,), "SAME", dimension_numbers=numbers)
    assert_equal(conv_general_dilated(line, taps, (1,), "SAME", dimension_numbers=numbers), expected)


def test_gradient_descent_inside_a_loop_is_that_of_lax_outside() -> None:
    inputs, kernel = normal(0, (2, 12, 12, 3), (5, 5, 3, 4))

    def descend(convolution: Callable, _: Any, kernel: jax.Array) -> jax.Array:
        return kernel - 1e-3 * jax.grad(lambda k: jnp.square(convolution(inputs, k)).sum())(kernel)

    ours = jax.jit(lambda k: lax.fori_loop(0, 3, partial(descend, convolve), k))(kernel)

    @jax.jit
    def theirs(kernel: jax.Array) -> jax.Array:
        for i in range(3):
            kernel = descend(convolve_with_lax, i, kernel)
        return kernel

    # Three steps, each with two sums in another order.
    assert_same_size(ours, theirs(kernel), 3 * FLOAT32)


def test_pooled_convolution_inside_a_loop_is_that_of_lax_outside() -> None:
    inputs, kernel = integers(0, (2, 9, 9, 2), (3, 3, 2, 4))

    def ascend(layer: Callable, _: Any, kernel: jax.Array) -> jax.Array:
        gradient = jax.grad(lambda k: layer(inputs, k).sum())(kernel)
        return jnp.clip(kernel + gradient, -3, 3)  # integers again: exact

    ours = jax.jit(lambda k: lax.fori_loop(0, 3, partial(ascend, partial(conv_max_pool, window=2)), k))(kernel)
    theirs = kernel
    for i in range(3):
        theirs = ascend(convolve_then_pool_with_lax, i, theirs)
    assert np.any(np.asarray(ours) != np.asarray(kernel))
    assert_equal(ours, theirs)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_vmap_over_images_and_over_kernels(axes: tuple) -> None:
    shapes = ((2, 8, 7, 3), (3, 3, 3, 4))
    shapes = tuple((3, *s) if axis == 0 else s for s, axis in zip(shapes, axes, strict=True))
    arguments = integers(0, *shapes)
    ours, theirs = partial(conv_max_pool, window=2), convolve_then_pool_with_lax
    assert_equal(
        value_and_gradients(jax.vmap(ours, axes), *arguments, whole=True),
        value_and_gradients(jax.vmap(theirs, axes), *arguments, whole=True),
    )


def test_forward_mode_is_that_of_lax() -> None:
    shapes = (2, 10, 9, 3), (5, 3, 3, 4)
    primals, tangents = integers(0, *shapes), integers(1, *shapes)
    for ours, theirs in (
        (partial(convolve, padding="SAME"), partial(convolve_with_lax, padding="SAME")),
        (partial(conv_max_pool, window=2), convolve_then_pool_with_lax),
    ):
        assert_equal(
            jax.jit(partial(jax.jvp, ours))(primals, tangents), jax.jit(partial(jax.jvp, theirs))(primals, tangents)
        )


def test_second_derivatives_are_those_of_lax() -> None:
    inputs, kernel, direction = normal(0, (1, 6, 6, 2), (3, 3, 2, 2), (3, 3, 2, 2))

    def curvature(convolution: Callable, kernel: jax.Array) -> jax.Array:
        gradient = jax.grad(lambda k: jnp.tanh(convolution(inputs, k)).sum())
        return jax.jvp(gradient, (kernel,), (direction,))[1]

    ours, theirs = (jax.jit(partial(curvature, c))(kernel) for c in (convolve, convolve_with_lax))
    assert_same_size(ours, theirs, FLOAT32)


@pytest.mark.parametrize("name", LENET)
@pytest.mark.parametrize("layer", [convolve, partial(conv_max_pool, window=2)], ids=["plain", "pooled"])
def test_on_cpu_the_convolutions_of_lenet_are_matrix_products_and_on_cuda_convolutions(
    name: str, layer: Callable
) -> None:
    gradient = jax.grad(lambda x, k: jnp.square(layer(x, k)).sum(), (0, 1))
    for function in (layer, gradient):
        cpu, cuda = (text_for(platform, function, *LENET[name]) for platform in ("cpu", "cuda"))
        assert "stablehlo.dot_general" in cpu
        assert "stablehlo.convolution" not in cpu and "select_and_scatter" not in cpu
        assert "stablehlo.convolution" in cuda and "stablehlo.dot_general" not in cuda


def test_what_makes_the_images_is_computed_once_for_each_pixel_and_not_for_each_block_that_sees_it() -> None:
    images, kernel = normal(0, *LENET["first"])
    program = jax.jit(lambda x, k: convolve(jnp.cos(x), k)).lower(images, kernel).compile().as_text()
    fused = [body for body in program.split("\n}") if " cosine(" in body]
    assert len(fused) == 1
    (root,) = re.findall(r"ROOT .*? = f32\[([\d,]+)\]", fused[0])
    assert math.prod(map(int, root.split(","))) == images.size


@pytest.mark.parametrize(
    ("kernel", "pool"),
    [
        ((1, 1, 3, 8), (1, 1)),  # a matrix product already
        ((5, 5, 16, 8), (1, 1)),  # 400 products per output
        ((3, 3, 64, 64), (1, 1)),
        ((5, 5, 3, 6), (9, 2)),  # no whole window
        ((13, 3, 1, 1), (1, 1)),  # no output
        ((3, 3, 3, 6), (5, 5)),  # no block of at most 8 x 8 holds... a window of 5 fits, but none of its size is tried
    ],
    ids=str,
)
def test_no_block_is_chosen_where_blocks_do_not_pay(kernel: tuple[int, ...], pool: tuple[int, int]) -> None:
    shape = (4, 12, 12, kernel[2])
    assert choose_block(shape, kernel, ((0, 0), (0, 0)), pool) is None


@pytest.mark.parametrize(
    ("shape", "kernel", "padding"),
    [
        ((4, 128, 128, 3), (5, 5, 3, 8), 2),  # more than 800 blocks of any size that is not mostly zeros
        ((4, 40, 40, 6), (5, 5, 6, 16), 2),  # for so many output channels 64 blocks are the most
        ((4, 40, 40, 3), (3, 3, 3, 6), 1),  # and for so small a kernel
        ((4, 64, 64, 3), (3, 3, 3, 64), 1),  # more output channels than pay
        ((4, 32, 32, 16), (3, 3, 16, 16), 1),  # 64 blocks are four times the work
    ],
    ids=str,
)
def test_no_block_is_chosen_where_there_would_be_many_or_mostly_zeros(
    shape: tuple[int, ...], kernel: tuple[int, ...], padding: int
) -> None:
    assert choose_block(shape, kernel, ((padding, padding), (padding, padding))) is None


def test_large_kernels_of_few_filters_go_by_many_blocks() -> None:
    block = choose_block((4, 96, 96, 3), (5, 5, 3, 6), ((2, 2), (2, 2)))
    assert block is not None and 64 < -(-96 // block[0]) * -(-96 // block[1]) <= 800


def test_without_a_block_the_program_on_cpu_is_the_convolution_of_lax() -> None:
    shapes = (1, 8, 8, 64), (3, 3, 64, 8)
    assert "stablehlo.convolution" in text_for("cpu", convolve, *shapes)
    assert "stablehlo.convolution" in text_for("cpu", partial(conv_max_pool, window=2), *shapes)
    inputs, kernel = integers(0, (1, 12, 11, 2), (3, 3, 2, 3))  # a pooling window for which there is no block
    ours = value_and_gradients(partial(conv_max_pool, window=5), inputs, kernel, whole=True)
    theirs = value_and_gradients(partial(convolve_then_pool_with_lax, window=(5, 5)), inputs, kernel, whole=True)
    assert_equal(ours, theirs)


sides = st.integers(1, 13)


@given(
    st.tuples(st.integers(1, 3), sides, sides, st.integers(1, 4)),
    st.tuples(*[st.integers(1, 5)] * 3),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_a_chosen_block_holds_whole_windows_and_is_no_larger_than_the_image(shape: Any, sizes: Any, pool: Any) -> None:
    kernel_shape = (*sizes[:2], shape[-1], sizes[2])
    block = choose_block(shape, kernel_shape, ((0, 0), (0, 0)), pool)
    assume(block is not None)
    size = [n - k + 1 for n, k in zip(shape[1:3], sizes[:2], strict=True)]
    assert all(b % k == 0 and b <= n for b, k, n in zip(block, pool, size, strict=True))


def test_an_empty_batch_gives_an_empty_result() -> None:
    inputs, kernel = normal(0, (0, 8, 8, 3), (3, 3, 3, 2))
    plain, pooled = jax.jit(lambda x, k: (convolve(x, k), conv_max_pool(x, k, 2)))(inputs, kernel)
    assert (plain.shape, pooled.shape) == ((0, 6, 6, 2), (0, 3, 3, 2))
