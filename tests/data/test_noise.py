"""Is the cheap noise normal? Fixed keys, so these tests cannot fail by chance from one day to the next.

A statistic of n draws is compared with its value for the normal distribution, in units of its own standard error
there: with ERRORS of them, an honest generator fails one of a million such comparisons.
"""

import math
from collections.abc import Callable
from functools import cache

import jax
import numpy as np
import pytest
from scipy import stats

from cnnlab.data import fast_normal

ERRORS = 5
# The maximum over 2**20 lags is itself about 5 standard errors: P(one of them beyond 6.5) is 8e-5.
ERRORS_OF_MANY = 6.5
MANY = 1 << 22
SOME = 1 << 20


def folded(seed: int, *data: int) -> jax.Array:
    key = jax.random.key(seed)
    for number in data:
        key = jax.random.fold_in(key, number)
    return key


# The keys that training uses: of a seed, of a step of it, of the part of the augmentation within the step.
KEYS = {"seed": folded(0), "step": folded(0, 0), "next step": folded(0, 1), "part": folded(7, 1000, 2)}


@cache
def program(count: int) -> Callable:
    return jax.jit(lambda key: fast_normal(key, (count,)))


@cache
def draws(name: str) -> np.ndarray:
    return np.asarray(program(MANY)(KEYS[name]), np.float64)


def some(key: jax.Array) -> np.ndarray:
    return np.asarray(program(SOME)(key), np.float64)


@pytest.mark.parametrize("name", KEYS)
def test_moments_are_those_of_the_normal_distribution(name: str) -> None:
    z = draws(name)
    root = math.sqrt(z.size)
    square = z * z
    assert abs(z.mean()) * root < ERRORS
    assert abs(square.mean() - 1) * root / math.sqrt(2) < ERRORS  # var(z^2) = 2
    assert abs((square * z).mean()) * root / math.sqrt(15) < ERRORS  # var(z^3) = 15
    assert abs((square * square).mean() - 3) * root / math.sqrt(96) < ERRORS  # var(z^4) = 105 - 9


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("sigmas", [1, 2, 3, 4, 4.5])
def test_both_tails_hold_the_share_of_the_normal_distribution(name: str, sigmas: float) -> None:
    z = draws(name)
    expected = stats.norm.sf(sigmas)
    error = math.sqrt(expected * (1 - expected) / z.size)
    for tail in (z > sigmas, z < -sigmas):
        assert abs(tail.mean() - expected) < ERRORS * error


@pytest.mark.parametrize("name", KEYS)
def test_the_kolmogorov_smirnov_test_finds_nothing(name: str) -> None:
    # P(one of a million honest samples) at 5 standard errors of a normal statistic, two-sided: 6e-7.
    assert stats.kstest(draws(name)[:SOME], stats.norm.cdf).pvalue > 2 * stats.norm.sf(ERRORS)


def test_no_number_is_beyond_the_bound_of_the_docstring_and_large_ones_occur() -> None:
    z = np.abs(np.concatenate([draws(name) for name in KEYS]))
    assert z.max() <= 5.4  # sqrt(-2 log 2**-21) = 5.396
    assert z.max() > 5  # of 16 million normal numbers 9.6 are beyond 5; none would be once in 10**4 keys
    assert np.isfinite(z).all()


@pytest.mark.parametrize("name", KEYS)
def test_neighbours_at_any_distance_are_uncorrelated(name: str) -> None:
    """Every lag up to 2**20 / 2: 1, 2, 3, rows and images of any size."""
    z = draws(name)[:SOME]
    assert np.abs(correlations(z, z)[1:]).max() < ERRORS_OF_MANY
    square = (z * z - 1) / math.sqrt(2)
    for lag in (1, 2, 3, 32, 32 * 3, 32 * 32 * 3):
        assert abs((z[lag:] * z[:-lag]).mean()) * math.sqrt(SOME) < ERRORS
        assert abs((square[lag:] * square[:-lag]).mean()) * math.sqrt(SOME) < ERRORS


PAIRS = {
    "steps": (folded(0, 0), folded(0, 1)),
    "late steps": (folded(3, 15_000), folded(3, 15_001)),
    "seeds": (folded(0), folded(1)),
    "seeds at one step": (folded(0, 12), folded(1, 12)),
    "parts of one step": (folded(0, 5, 0), folded(0, 5, 1)),
    "step and part exchanged": (folded(0, 1, 2), folded(0, 2, 1)),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS.keys())
def test_two_keys_give_uncorrelated_numbers_at_any_offset(pair: tuple[jax.Array, jax.Array]) -> None:
    """No offset either: one stream is not the other, moved."""
    a, b = (some(key) for key in pair)
    assert not np.any(a == b) or np.mean(a == b) < 1e-5
    assert np.abs(correlations(a, b)).max() < ERRORS_OF_MANY
    square = ((a * a - 1) * (b * b - 1)).mean() / 2
    assert abs(square) * math.sqrt(SOME) < ERRORS


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of `a` with `b` moved around by every lag, in standard errors."""
    found = np.fft.irfft(np.conj(np.fft.rfft(a)) * np.fft.rfft(b), n=len(a))
    return found / math.sqrt(len(a))


def test_the_noise_of_one_pixel_is_independent_from_step_to_step() -> None:
    steps, pixels = 4096, 256
    draw = jax.jit(jax.vmap(lambda step: fast_normal(jax.random.fold_in(jax.random.key(0), step), (pixels,))))
    z = np.asarray(draw(np.arange(steps)), np.float64)  # [steps, pixels]
    for lag in (1, 2, 3):
        assert abs((z[lag:] * z[:-lag]).mean()) * math.sqrt(z.size) < ERRORS
    # Sums over steps, and over pixels: squares of normal numbers, chi-squared.
    for axis in (0, 1):
        n, sums = z.shape[axis], z.shape[1 - axis]
        chi_squared = n * np.square(z.mean(axis)).sum()
        assert abs(chi_squared - sums) < ERRORS * math.sqrt(2 * sums)


def test_the_numbers_are_a_pure_function_of_the_key() -> None:
    key = folded(5, 6)
    first = np.asarray(fast_normal(key, (4, 5)))
    np.testing.assert_array_equal(first, fast_normal(key, (4, 5)))
    # Compiled, alone or in a larger program: within one rounding of a logarithm and a polynomial.
    np.testing.assert_allclose(first, jax.jit(lambda key: fast_normal(key, (4, 5)))(key), rtol=1e-6, atol=1e-6)
    assert np.all(first != fast_normal(folded(5, 7), (4, 5)))


def test_the_shape_only_cuts_and_folds_one_sequence() -> None:
    key = folded(1)
    long = np.asarray(fast_normal(key, (60,)))
    # As above: the same numbers, one rounding apart where another shape takes other vector instructions.
    np.testing.assert_allclose(np.ravel(fast_normal(key, (3, 4, 2))), long[:24], rtol=1e-6, atol=1e-6)


def test_any_shape_works_and_the_type_is_float32() -> None:
    shapes = ((), (0,), (3, 0, 2), (1,), (2, 3, 4, 5))
    for z, shape in zip(jax.jit(lambda key: [fast_normal(key, s) for s in shapes])(folded(0)), shapes, strict=True):
        assert (z.shape, z.dtype) == (shape, np.float32)


def test_old_style_keys_and_batches_of_keys_work() -> None:
    draw = jax.jit(lambda key: fast_normal(key, (7,)))
    np.testing.assert_array_equal(draw(jax.random.key(3)), draw(jax.random.PRNGKey(3)))
    keys = jax.random.split(jax.random.key(3), 3)
    for row, key in zip(jax.jit(jax.vmap(draw))(keys), keys, strict=True):
        # One rounding of a logarithm and a polynomial, where other vector instructions are used.
        np.testing.assert_allclose(row, draw(key), rtol=1e-6, atol=1e-6)
