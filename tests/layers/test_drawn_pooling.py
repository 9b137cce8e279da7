"""Pooling of drawn shapes, windows and types against `lax.reduce_window` in float32: values and gradients."""

from functools import partial
from random import Random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings

from cnnlab.layers import avg_pool, max_pool
from cnnlab.layers.block_convolution import MOST_OUT_CHANNELS
from tests.layers import lax_oracle as oracle
from tests.layers.drawn import FLOATS, assert_exact, half_unit, normal, seeds, two, value_and_gradients, whole
from tests.layers.lax_oracle import pads_of

Pair = tuple[int, int]

WINDOWS = [(1, 1), (2, 2), (2, 3), (3, 3), (4, 1), (4, 4)]


def shape_of(random: Random) -> tuple[int, ...]:
    return random.randint(1, 2), *two(random, 1, 12), random.choice([1, 3, MOST_OUT_CHANNELS, 17, 20])


def options_of(random: Random) -> tuple[Pair, Pair | None, Any]:
    """Window, strides and padding."""
    padding = random.choice(["VALID", "SAME", (two(random, -2, 3), two(random, -2, 3))])
    return random.choice(WINDOWS), random.choice([None, two(random, 1, 4)]), padding


def in_numbers(shape: Any, window: Pair, strides: Pair | None, padding: Any) -> tuple[dict[str, Any], tuple[int, ...]]:
    """The options of the oracle, and the shape of the result; not if no window fits."""
    strides = strides or window
    padding = pads_of(shape[1:3], window, strides, padding)
    sides = [(n + sum(p) - k) // s + 1 for n, p, k, s in zip(shape[1:3], padding, window, strides, strict=True)]
    assume(min(sides) > 0)
    return {"window": window, "strides": strides, "padding": padding}, (shape[0], *sides, shape[3])


def assert_max_pooling_is_exact(shape: Any, window: Pair, strides: Pair | None, padding: Any, dtype: Any) -> None:
    options, out = in_numbers(shape, window, strides, padding)
    ours = value_and_gradients(partial(max_pool, window=window, strides=strides, padding=padding))
    (direction,) = whole(dtype, out)  # of which bfloat16 holds the sum over all windows that overlap
    for numbers in (whole, normal):  # with ties, and without
        (images,) = numbers(dtype, shape)
        assert_exact(ours(direction, images), oracle.pooling(direction, images, **options))


@settings(max_examples=12)
@given(seeds)
def test_max_pooling_is_that_of_lax(seed: int) -> None:
    random = Random(seed)
    assert_max_pooling_is_exact(shape_of(random), *options_of(random), random.choice(FLOATS))


@settings(max_examples=12)
@given(seeds)
def test_max_pooling_of_disjoint_windows_is_that_of_lax(seed: int) -> None:
    random = Random(seed)
    assert_max_pooling_is_exact(shape_of(random), random.choice(WINDOWS), None, "VALID", random.choice(FLOATS))


@pytest.mark.parametrize(("channels", "batch_is_last"), [(1, True), (16, True), (17, False), (20, False)])
def test_disjoint_windows_are_pooled_with_the_batch_last_where_there_are_few_channels(
    channels: int, batch_is_last: bool
) -> None:
    images = jax.ShapeDtypeStruct((2, 8, 8, channels), jnp.float32)
    program = jax.jit(partial(max_pool, window=2)).trace(images).lower(lowering_platforms=("cpu",)).as_text()
    assert ("transpose" in program) == batch_is_last


@settings(max_examples=12)
@given(seeds)
def test_mean_pooling_is_that_of_lax(seed: int) -> None:
    """Each number is as near as rounding each sum to the type of the images allows.

    A sum of `k x l` pixels is one of l and then one of k, and is divided, by a reciprocal that is rounded too: that are
    `k + l` roundings, each of at most half a unit of the sum of the magnitudes. The gradient has no more: it is divided
    first, and no pixel lies in more windows of a row or column than these have pixels. The oracle adds `k l` numbers.
    """
    random = Random(seed)
    shape, (window, strides, padding), dtype = shape_of(random), options_of(random), random.choice(FLOATS)
    padded_count = random.choice([True, False])
    options, out = in_numbers(shape, window, strides, padding)
    (direction,), (images,) = normal(dtype, out), normal(dtype, shape)
    mean = partial(avg_pool, window=window, strides=strides, padding=padding, count_include_pad=padded_count)
    ours = value_and_gradients(mean)(direction, images)
    sums = partial(oracle.pooling, **options, of_sums=True)
    counts = np.prod(window) if padded_count else sums(np.zeros(out), np.ones(shape))[0]

    def theirs(direction: Any, images: Any) -> list[np.ndarray]:
        with np.errstate(divide="ignore", invalid="ignore"):  # windows of padding alone have no mean, and no gradient
            value, gradient = sums(np.where(counts, np.asarray(direction, np.float64) / counts, 0), images)
            return [value / counts, gradient]

    tolerance = sum(window) * half_unit(dtype) + np.prod(window) * half_unit(jnp.float32)
    magnitudes = theirs(*(np.abs(np.asarray(x, np.float32)) for x in (direction, images)))
    for a, b, size in zip(ours, theirs(direction, images), magnitudes, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        assert (np.abs(a - b) <= tolerance * size)[~np.isnan(b)].all()
