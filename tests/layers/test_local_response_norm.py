"""Local response normalisation against a loop written from the formula of the paper, in value and gradient."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnlab.layers import local_response_norm

# A few operations of float32 against the same in float64, relative.
FLOAT32 = 2e-6


def numpy_local_response_norm(
    a: np.ndarray, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> np.ndarray:
    """Section 3.3 of Krizhevsky 2012, symbol for symbol; `size` is the paper's n, channels its kernel maps."""
    n, maps = size, a.shape[-1]
    b = np.zeros(a.shape, np.float64)
    for i in range(maps):
        total = np.zeros(a.shape[:-1])
        for j in range(max(0, i - n // 2), min(maps - 1, i + n // 2) + 1):
            total += a[..., j].astype(np.float64) ** 2
        b[..., i] = a[..., i] / (k + alpha * total) ** beta
    return b


def numbers(*shape: int, scale: float = 100.0) -> np.ndarray:
    """Numbers so large that the sum of squares shows beside k."""
    return (np.random.default_rng(0).standard_normal(shape) * scale).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [{}, {"size": 1}, {"size": 3, "k": 1.0}, {"size": 7, "alpha": 1e-3}, {"beta": 0.5}, {"beta": 1.0, "k": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("channels", [1, 2, 4, 5, 12])  # fewer than the window, as many, more
def test_it_is_the_formula_of_the_paper_at_every_channel(channels: int, options: dict[str, Any]) -> None:
    images = numbers(2, 3, 2, channels)
    expected = numpy_local_response_norm(images, **options)
    np.testing.assert_allclose(local_response_norm(jnp.asarray(images), **options), expected, rtol=FLOAT32)
    assert not np.allclose(expected, images, rtol=0.01)  # it does something


def test_border_channels_have_fewer_neighbours() -> None:
    ones = jnp.ones((1, 1, 1, 6))
    divisors = 1 / np.asarray(local_response_norm(ones, size=5, k=0.0, alpha=1.0, beta=1.0)).ravel()
    np.testing.assert_allclose(divisors, [3, 4, 5, 5, 4, 3], rtol=FLOAT32)


def test_the_defaults_are_the_constants_of_the_paper() -> None:
    parameters = inspect.signature(local_response_norm).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    assert defaults == {"size": 5, "k": 2.0, "alpha": 1e-4, "beta": 0.75}


@pytest.mark.parametrize("beta", [0.75, 0.6])
def test_its_gradient_is_the_numerical_one(beta: float) -> None:
    images, direction = numbers(1, 1, 2, 7, scale=1.0), numbers(1, 1, 2, 7, scale=1.0)[..., ::-1]
    options = {"alpha": 0.5, "beta": beta}  # so large that neighbours matter
    gradient = jax.grad(lambda x: (local_response_norm(x, **options) * direction).sum())(jnp.asarray(images))
    numerical, step = np.zeros(images.shape), 1e-5
    for index in np.ndindex(*images.shape):
        shift = np.zeros(images.shape)
        shift[index] = step
        up, down = (numpy_local_response_norm(images + sign * shift, **options) for sign in (1, -1))
        numerical[index] = ((up - down) * direction).sum() / (2 * step)
    np.testing.assert_allclose(gradient, numerical, rtol=0, atol=1e-5 * np.abs(numerical).max())


def test_in_bfloat16_the_divisor_is_computed_in_float32() -> None:
    images = jnp.asarray(numbers(2, 4, 4, 16)).astype(jnp.bfloat16)
    result = local_response_norm(images)
    assert result.dtype == jnp.bfloat16
    # Exact: float32 inside, rounded once at the end.
    np.testing.assert_array_equal(result, local_response_norm(images.astype(jnp.float32)).astype(jnp.bfloat16))


@pytest.mark.parametrize("size", [0, 2, 4, -1])
def test_a_window_without_a_middle_is_an_error(size: int) -> None:
    with pytest.raises(ValueError, match=f"Expected an odd number of channels to normalise over, got size={size}; do"):
        local_response_norm(jnp.ones((1, 2, 2, 4)), size=size)
