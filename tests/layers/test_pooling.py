"""Pooling against NumPy and `flax.nnx`: values, where the gradient goes when maxima are equal, odd cases, programs."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import assume, given
from hypothesis import strategies as st
from jax import lax

from cnnlab.layers import avg_pool, max_pool, min_pool

# A mean of up to 16 float32 numbers in any order, relative to the largest input.
MEAN = 1e-6

sides = st.integers(1, 4)
windows = sides | st.tuples(sides, sides)
paddings = st.sampled_from(["VALID", "SAME", ((1, 0), (0, 2)), ((1, 1), (1, 1))])
shapes = st.tuples(st.integers(1, 2), st.integers(1, 11), st.integers(1, 11), st.integers(1, 3))


def pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def pads_of(size: int, window: int, stride: int, padding: Any, axis: int) -> tuple[int, int]:
    if padding == "VALID":
        return 0, 0
    if padding == "SAME":
        total = max((-(-size // stride) - 1) * stride + window - size, 0)
        return total // 2, total - total // 2
    return padding[axis]


def numpy_windows(images: np.ndarray, window: Any, strides: Any, padding: Any, fill: float) -> np.ndarray:
    """All windows, `[b, h', w', c, window height, window width]`."""
    window, strides = pair(window), pair(window if strides is None else strides)
    pads = [pads_of(images.shape[i + 1], window[i], strides[i], padding, i) for i in (0, 1)]
    padded = np.pad(images, ((0, 0), *pads, (0, 0)), constant_values=fill)
    if padded.shape[1] < window[0] or padded.shape[2] < window[1]:
        return np.zeros((0,))
    cut = np.lib.stride_tricks.sliding_window_view(padded, window, axis=(1, 2))
    return cut[:, :: strides[0], :: strides[1]]


def gradient(function: Callable, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The value, and the gradient for a direction of integers (so that sums are exact)."""
    shape = jax.eval_shape(function, images).shape
    direction = jnp.asarray(np.random.default_rng(1).integers(-4, 5, shape), images.dtype)

    @jax.jit
    def run(images: jax.Array, direction: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, pull = jax.vjp(function, images)
        return value, pull(direction)[0]

    return run(images, direction)


@given(shapes, windows, st.none() | windows, paddings)
def test_pooling_is_that_of_numpy(shape: Any, window: Any, strides: Any, padding: Any) -> None:
    images = np.random.default_rng(0).standard_normal(shape).astype(np.float32) - 2  # most windows are negative
    low, zero, high = (numpy_windows(images, window, strides, padding, fill) for fill in (-np.inf, 0, np.inf))
    assume(zero.size)
    # One program for the three.
    largest, smallest, mean = jax.jit(
        lambda x: tuple(pool(x, window, strides, padding) for pool in (max_pool, min_pool, avg_pool))
    )(images)
    np.testing.assert_array_equal(largest, low.max((-2, -1)))
    np.testing.assert_array_equal(smallest, high.min((-2, -1)))
    expected = zero.mean((-2, -1), dtype=np.float64)  # padded zeros count
    np.testing.assert_allclose(mean, expected, rtol=0, atol=MEAN * np.abs(images).max())


def test_the_mean_of_the_pixels_that_exist_does_not_count_padding() -> None:
    images = jnp.arange(9.0).reshape(1, 3, 3, 1)
    found = avg_pool(images, 2, 2, ((0, 1), (0, 1)), count_include_pad=False)
    np.testing.assert_array_equal(found[0, ..., 0], [[2, 3.5], [6.5, 8]])


def test_min_pooling_sends_the_gradient_to_the_first_minimum() -> None:
    images = jnp.asarray([[3.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]]).reshape(1, 2, 4, 1)
    _, ours = gradient(lambda x: 2 * min_pool(x, 2), images)
    assert np.count_nonzero(ours) <= 2
    found = jax.grad(lambda x: min_pool(x, 2).sum())(images)
    np.testing.assert_array_equal(found[0, ..., 0], [[0, 1, 1, 0], [0, 0, 0, 0]])


def test_among_equal_numbers_the_first_in_row_major_order_gets_the_gradient() -> None:
    found = jax.grad(lambda x: max_pool(x, (2, 3)).sum())(jnp.zeros((1, 5, 7, 1)))
    expected = np.zeros((5, 7))
    expected[0:4:2, 0:6:3] = 1  # the last row and the last column fill no window
    np.testing.assert_array_equal(found[0, ..., 0], expected)


def test_windows_of_more_than_256_pixels_find_their_first_maximum() -> None:
    images = np.zeros((1, 17, 17, 1), np.float32)
    images[0, 16, 10:14] = 5
    found = jax.grad(lambda x: max_pool(x, 17).sum())(jnp.asarray(images))
    assert np.flatnonzero(found).tolist() == [16 * 17 + 10]


def test_infinities_and_nan_are_pooled_as_reduce_window_pools_them() -> None:
    rows = [[-np.inf, -np.inf, np.inf, 1], [-np.inf, -np.inf, 2, -np.inf], [np.nan, 1, 0, 0], [1, 2, 0, -0.0]]
    images = jnp.asarray(rows, jnp.float32).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(max_pool(images, 2), nnx.max_pool(images, (2, 2), (2, 2)))


@pytest.mark.parametrize("shape", [(3, 1, 5, 2), (3, 5, 1, 2), (0, 4, 4, 2)])
def test_no_window_or_no_image_gives_an_empty_result(shape: tuple[int, ...]) -> None:
    images = jnp.zeros(shape)
    expected = nnx.max_pool(images, (2, 2), (2, 2)).shape
    assert 0 in expected
    assert max_pool(images, 2).shape == min_pool(images, 2).shape == avg_pool(images, 2).shape == expected


@pytest.mark.parametrize(
    ("shape", "padding"), [((1, 1, 1, 1), "VALID"), ((2, 5, 1, 2), "VALID"), ((1, 2, 4, 1), [(0, 0)] * 2)]
)
def test_images_smaller_than_an_overlapping_window_give_an_empty_result(shape: tuple[int, ...], padding: Any) -> None:
    images = jnp.zeros(shape)
    expected = nnx.max_pool(images, (3, 3), (2, 2), padding).shape
    assert 0 in expected and max_pool(images, 3, 2, padding).shape == expected
    assert jax.grad(lambda x: max_pool(x, 3, 2, padding).sum())(images).shape == shape


def test_one_image_without_a_batch_is_pooled() -> None:
    images = np.arange(16.0, dtype=np.float32).reshape(4, 4, 1)
    np.testing.assert_array_equal(max_pool(jnp.asarray(images), 2), [[[5], [7]], [[13], [15]]])


def test_pooling_works_under_vmap_forward_mode_and_inside_a_loop() -> None:
    rng = np.random.default_rng(0)
    images, tangents = (jnp.asarray(rng.integers(-2, 2, (3, 2, 6, 6, 2)), jnp.float32) for _ in range(2))
    theirs = partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2))
    ours = partial(max_pool, window=2)
    for a, b in zip(
        jax.jit(partial(jax.jvp, jax.vmap(ours)))((images,), (tangents,)),
        jax.jit(partial(jax.jvp, jax.vmap(theirs)))((images,), (tangents,)),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)

    def step(pool: Callable, _: Any, x: jax.Array) -> jax.Array:
        return x - jax.grad(lambda x: jnp.square(pool(x)).sum())(x)

    looped = jax.jit(lambda x: lax.fori_loop(0, 2, partial(step, ours), x))(images[0])
    np.testing.assert_array_equal(looped, step(theirs, 1, step(theirs, 0, images[0])))


POOLS = {
    "max of disjoint windows": (partial(max_pool, window=2), "select_and_scatter"),
    "max of windows that overlap": (partial(max_pool, window=3, strides=2, padding="SAME"), "select_and_scatter"),
    "mean": (partial(avg_pool, window=3, strides=2), "reduce_window"),
    "mean of pixels": (
        partial(avg_pool, window=3, strides=2, padding="SAME", count_include_pad=False),
        "reduce_window",
    ),
}


@pytest.mark.parametrize(("pool", "elsewhere"), POOLS.values(), ids=POOLS)
def test_on_cpu_there_are_neither_windows_nor_inserted_zeros_and_on_cuda_it_is_xlas_own(
    pool: Callable, elsewhere: str
) -> None:
    traced = jax.jit(jax.grad(lambda x: pool(x).sum())).trace(jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32))
    program = traced.lower(lowering_platforms=("cpu",)).as_text()
    assert "reduce_window" not in program and "select_and_scatter" not in program
    assert set(re.findall(r"interior = \[([\d, ]*)\]", program)) <= {"0, 0, 0, 0"}
    assert elsewhere in traced.lower(lowering_platforms=("cuda",)).as_text()


def test_the_mean_of_integers_is_a_float_and_their_minimum_an_integer() -> None:
    bright = jnp.full((1, 4, 4, 1), 255, jnp.uint8)  # the sum of four of them is no uint8
    mean = avg_pool(bright, 2)
    assert mean.dtype == jnp.float32
    np.testing.assert_array_equal(mean, np.full((1, 2, 2, 1), 255))
    numbers = jnp.arange(4, dtype=jnp.uint8).reshape(1, 2, 2, 1)  # 0 among them, of which there is no negative
    for pool, expected in ((min_pool, 0), (max_pool, 3)):
        assert pool(numbers, 2).dtype == jnp.uint8 and int(pool(numbers, 2)[0, 0, 0, 0]) == expected


@pytest.mark.parametrize(
    "pool",
    [
        partial(max_pool, window=2),
        partial(max_pool, window=3, strides=2, padding="SAME"),
        partial(avg_pool, window=3, strides=2),
        partial(avg_pool, window=3, strides=2, padding="SAME", count_include_pad=False),
    ],
    ids=lambda pool: f"{pool.func.__name__} {pool.keywords}",
)
@pytest.mark.parametrize("sizes", ["b, h, w, 3", "b, 7, 8, 3"])
def test_images_of_symbolic_sizes_are_exported(pool: Callable, sizes: str) -> None:
    shape = jax.export.symbolic_shape(sizes)
    exported = jax.export.export(jax.jit(pool))(jax.ShapeDtypeStruct(shape, jnp.float32))
    images = jnp.asarray(np.random.default_rng(0).standard_normal((2, 7, 8, 3)), jnp.float32)
    np.testing.assert_allclose(exported.call(images), pool(images), rtol=0, atol=MEAN * 4)


def test_large_windows_and_strides_are_left_to_xla() -> None:
    images = np.random.default_rng(0).standard_normal((1, 20, 20, 30)).astype(np.float32)
    np.testing.assert_array_equal(max_pool(jnp.asarray(images), 20, 1)[0, 0, 0], images.max((0, 1, 2)))
    mean = images.mean((0, 1, 2), dtype=np.float64)
    np.testing.assert_allclose(avg_pool(jnp.asarray(images), 20)[0, 0, 0], mean, rtol=0, atol=MEAN * 4)
    for pool in (max_pool, avg_pool):
        for window, strides in ((17, 1), (2, 17)):
            traced = jax.jit(partial(pool, window=window, strides=strides)).trace(images)
            assert "reduce_window" in traced.lower(lowering_platforms=("cpu",)).as_text()
