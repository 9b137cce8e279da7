"""Arrays that the compiler for CPU has to finish: the same numbers and gradients, with a loop on CPU alone."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnlab.layers.finished import finished


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_finished_array_is_itself_to_the_bit(dtype: Any) -> None:
    odd = [0.0, -0.0, 1.0, -1e38, 1e38, np.inf, -np.inf, 1e-37, 3.0]
    for first in (1.0, np.nan):  # a NaN in the first place makes the loop turn
        x = jnp.asarray([first, *odd], dtype)
        assert np.asarray(jax.jit(finished)(x)).tobytes() == np.asarray(x).tobytes()


def test_finished_arrays_pass_gradients_of_both_modes_on() -> None:
    x = jnp.arange(1.0, 4.0)

    def f(x: jax.Array) -> jax.Array:
        return (finished(x) ** 3).sum()

    np.testing.assert_allclose(jax.jit(jax.grad(f))(x), 3 * x**2, rtol=1e-6)
    np.testing.assert_allclose(jax.jvp(f, (x,), (x,))[1], 3 * (x**3).sum(), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.hessian(f))(x), np.diag(6 * x), rtol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(f))(x[:, None])[:, 0], 3 * x**2, rtol=1e-6)


def lowered(platform: str, function: Callable) -> str:
    traced = jax.jit(function).trace(jax.ShapeDtypeStruct((4,), jnp.float32))
    return traced.lower(lowering_platforms=(platform,)).as_text()


def test_only_cpu_waits_and_gradients_do_not() -> None:
    gradient = jax.grad(lambda x: (3 * finished(x)).sum())
    assert "while" in lowered("cpu", finished) and "while" not in lowered("cpu", gradient)
    assert "while" not in lowered("cuda", finished)


def test_an_empty_array_is_finished() -> None:
    assert jax.jit(finished)(jnp.zeros((0, 3))).shape == (0, 3)
