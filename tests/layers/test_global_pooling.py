"""Global and adaptive pooling against NumPy, and against PyTorch where it is installed."""

from random import Random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from cnnlab.layers import adaptive_avg_pool, global_avg_pool, global_max_pool
from tests.layers.drawn import FLOATS, half_unit, normal, seeds, two, value_and_gradients, whole

# Means of some hundred float32 numbers in any order, relative to the largest input.
MEAN = 1e-6

# Sides of images and grids: equal, divisible, with overlap, larger than the image, one window.
SIZES = [((6, 6), 6), ((12, 6), (4, 3)), ((13, 7), (6, 6)), ((2, 3), (6, 4)), ((5, 9), 1)]


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def test_global_pooling_is_the_mean_and_the_maximum_over_all_pixels() -> None:
    x = images(2, 5, 7, 3)
    assert global_avg_pool(jnp.asarray(x)).shape == (2, 3)
    np.testing.assert_allclose(global_avg_pool(jnp.asarray(x)), x.mean((1, 2), np.float64), rtol=0, atol=MEAN * 4)
    np.testing.assert_array_equal(global_max_pool(jnp.asarray(x)), x.max((1, 2)))


def test_the_gradients_of_global_pooling() -> None:
    x = jnp.asarray([[1.0, 5.0], [5.0, 2.0]]).reshape(1, 2, 2, 1)
    np.testing.assert_array_equal(jax.grad(lambda x: global_avg_pool(x).sum())(x), np.full(x.shape, 0.25))
    # Equal maxima share the gradient.
    np.testing.assert_array_equal(jax.grad(lambda x: global_max_pool(x).sum())(x)[0, ..., 0], [[0, 0.5], [0.5, 0]])


def drawn_case(random: Random) -> tuple[tuple[int, ...], Any]:
    """A shape of images and a type."""
    return (random.randint(1, 2), *two(random, 1, 9), random.choice([1, 3, 16, 17, 20])), random.choice(FLOATS)


def averages(length: int, count: int) -> np.ndarray:
    """The matrix that takes the means of `count` windows that cover a line of pixels."""
    windows = [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]
    pixels = np.arange(length)
    return np.stack([((pixels >= start) & (pixels < end)) / (end - start) for start, end in windows])


@settings(max_examples=12)
@given(seeds)
def test_global_and_adaptive_means_and_their_gradients_are_within_rounding(seed: int) -> None:
    """The means of rows are rounded, and then those of columns; sums are made in float32.

    The gradient is rounded when divided, and once more for each other window of a row or column that holds the pixel.
    """
    random = Random(seed)
    (shape, dtype), size = drawn_case(random), random.choice([None, two(random, 1, 7)])
    pool = global_avg_pool if size is None else lambda x: adaptive_avg_pool(x, size)
    rows, columns = (averages(n, k) for n, k in zip(shape[1:3], size or (1, 1), strict=True))
    out = (shape[0], shape[3]) if size is None else (shape[0], *size, shape[3])
    (direction,), (x,) = normal(dtype, out), normal(dtype, shape)

    def expected(direction, x):
        grid = direction.reshape(shape[0], len(rows), len(columns), shape[3])
        value = np.einsum("ph,bhwc,qw->bpqc", rows, x, columns)
        return value.reshape(out), np.einsum("ph,bpqc,qw->bhwc", rows, grid, columns)

    numbers = [np.asarray(a, np.float64) for a in (direction, x)]
    windows = sum(np.count_nonzero(a, 0).max() for a in (rows, columns))
    sums = (shape[1] + shape[2] + 4) * half_unit(jnp.float32)  # one for each number that is added or divided
    found, magnitudes = value_and_gradients(pool)(direction, x), expected(*map(np.abs, numbers))
    for a, b, size_, roundings in zip(found, expected(*numbers), magnitudes, (2, windows), strict=True):
        assert a.shape == b.shape
        assert (np.abs(a - b) <= (roundings * half_unit(dtype) + sums) * size_).all()


@settings(max_examples=12)
@given(seeds)
def test_the_global_maximum_shares_its_gradient_in_every_type(seed: int) -> None:
    shape, dtype = drawn_case(Random(seed))
    (direction,), (x,) = normal(dtype, (shape[0], shape[3])), whole(dtype, shape)
    value, gradient = value_and_gradients(global_max_pool)(direction, x)
    pixels = np.asarray(x, np.float64)
    np.testing.assert_array_equal(value, pixels.max((1, 2)))
    equal = pixels == pixels.max((1, 2), keepdims=True)
    share = equal / equal.sum((1, 2), keepdims=True) * np.asarray(direction, np.float64)[:, None, None]
    # A quotient that is rounded, or a product with a reciprocal that is rounded too.
    assert (np.abs(gradient - share) <= 2 * half_unit(dtype) * np.abs(share)).all()


def test_the_global_mean_of_bfloat16_is_summed_in_float32() -> None:
    x = jnp.ones((1, 64, 64, 1), jnp.bfloat16)  # summed in bfloat16, 256 ones and more stay 256
    assert global_avg_pool(x).dtype == adaptive_avg_pool(x, 1).dtype == jnp.bfloat16
    assert float(global_avg_pool(x)[0, 0]) == float(adaptive_avg_pool(x, 1)[0, 0, 0, 0]) == 1


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_adaptive_pooling_is_the_mean_of_each_window(shape: tuple[int, int], size) -> None:
    x = images(2, *shape, 3)
    rows, columns = (size, size) if isinstance(size, int) else size
    expected = np.empty((2, rows, columns, 3))
    for i in range(rows):
        for j in range(columns):
            top, bottom = int(np.floor(i * shape[0] / rows)), int(np.ceil((i + 1) * shape[0] / rows))
            left, right = int(np.floor(j * shape[1] / columns)), int(np.ceil((j + 1) * shape[1] / columns))
            expected[:, i, j] = x[:, top:bottom, left:right].mean((1, 2), np.float64)
    pooled = jax.jit(lambda x: adaptive_avg_pool(x, size))(x)
    np.testing.assert_allclose(pooled, expected, rtol=0, atol=MEAN * np.abs(x).max())


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_adaptive_pooling_is_that_of_pytorch_in_value_and_gradient(shape: tuple[int, int], size) -> None:
    torch = pytest.importorskip("torch")
    x, direction = images(2, *shape, 3), images(2, *((size, size) if isinstance(size, int) else size), 3)
    value, pull = jax.vjp(lambda x: adaptive_avg_pool(x, size), jnp.asarray(x))
    theirs = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    pooled = torch.nn.AdaptiveAvgPool2d(size)(theirs)
    pooled.backward(torch.from_numpy(direction.transpose(0, 3, 1, 2).copy()))
    for ours, found in ((value, pooled.detach()), (pull(jnp.asarray(direction))[0], theirs.grad)):
        np.testing.assert_allclose(ours, found.numpy().transpose(0, 2, 3, 1), rtol=0, atol=MEAN * 10)


def test_adaptive_pooling_to_the_same_size_returns_the_images() -> None:
    x = jnp.asarray(images(1, 6, 6, 2))
    assert adaptive_avg_pool(x, 6) is x


@pytest.mark.parametrize("size", [0, (3, 0), -1])
def test_a_size_that_is_not_positive_is_refused(size) -> None:
    with pytest.raises(
        ValueError, match=r"Expected a positive size of the pooled images, got .*; do ask for 1 or more"
    ):
        adaptive_avg_pool(jnp.zeros((1, 4, 4, 1)), size)
