"""BatchNorm against its formula in float64, and what it promises beyond flax's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.layers import BatchNorm

# Two float32 formulas, relative to the largest number.
FLOAT32 = 1e-5
# Rounding a result to bfloat16: half a unit of 8 bits.
BFLOAT16 = 2**-8
EPSILON = 1e-5


def layer(features: int, **options) -> BatchNorm:
    """A layer in which no number has its initial value."""
    norm, rng = BatchNorm(features, rngs=nnx.Rngs(0), **options), np.random.default_rng(0)
    norm.scale[...] = jnp.asarray(rng.uniform(0.5, 2, features), jnp.float32)
    norm.bias[...] = jnp.asarray(rng.standard_normal(features), jnp.float32)
    norm.mean[...] = jnp.asarray(rng.standard_normal(features), jnp.float32)
    norm.var[...] = jnp.asarray(rng.uniform(0.5, 2, features), jnp.float32)
    return norm


def numbers(norm: BatchNorm) -> dict[str, np.ndarray]:
    return {name: np.asarray(getattr(norm, name)[...], np.float64) for name in ("scale", "bias", "mean", "var")}


def images(*shape: int, seed: int = 1) -> np.ndarray:
    return (3 * np.random.default_rng(seed).standard_normal(shape) + 1).astype(np.float32)


def assert_close(ours, expected: np.ndarray, tolerance: float = FLOAT32) -> None:
    np.testing.assert_allclose(np.asarray(ours, np.float64), expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_in_train_mode_the_statistics_of_the_batch_count_and_the_running_ones_follow() -> None:
    norm, x = layer(3), images(4, 5, 6, 3)
    old = numbers(norm)
    mean, var = x.mean((0, 1, 2), np.float64), x.astype(np.float64).var((0, 1, 2))
    assert_close(norm(jnp.asarray(x)), old["scale"] * (x - mean) / np.sqrt(var + EPSILON) + old["bias"])
    assert_close(norm.mean[...], 0.9 * old["mean"] + 0.1 * mean)
    assert_close(norm.var[...], 0.9 * old["var"] + 0.1 * var)


def test_in_eval_mode_the_running_statistics_count_and_stay() -> None:
    norm, x = layer(3), images(4, 5, 6, 3)
    norm.eval()
    old = numbers(norm)
    expected = old["scale"] * (x - old["mean"]) / np.sqrt(old["var"] + EPSILON) + old["bias"]
    assert_close(norm(jnp.asarray(x)), expected)
    for name, value in numbers(norm).items():
        np.testing.assert_array_equal(value, old[name])


def test_a_new_layer_has_scale_one_bias_zero_mean_zero_and_variance_one() -> None:
    norm = numbers(BatchNorm(2, rngs=nnx.Rngs(0)))
    assert {name: value.tolist() for name, value in norm.items()} == {
        "scale": [1, 1],
        "bias": [0, 0],
        "mean": [0, 0],
        "var": [1, 1],
    }


def test_the_gradient_is_that_of_the_formula() -> None:
    norm, x, direction = layer(3), images(4, 2, 3, 3), images(4, 2, 3, 3, seed=2)
    graph, state = nnx.split(norm)

    def objective(x: jax.Array) -> jax.Array:
        return (nnx.merge(graph, state, copy=True)(x) * direction).sum()

    scale, mean, var = numbers(norm)["scale"], x.mean((0, 1, 2), np.float64), x.astype(np.float64).var((0, 1, 2))
    standard = (x - mean) / np.sqrt(var + EPSILON)
    centred = direction - direction.mean((0, 1, 2)) - standard * (direction * standard).mean((0, 1, 2))
    assert_close(jax.jit(jax.grad(objective))(jnp.asarray(x)), scale / np.sqrt(var + EPSILON) * centred)


def test_the_running_variance_is_the_biased_one() -> None:
    norm = BatchNorm(1, rngs=nnx.Rngs(0))
    norm(jnp.asarray([[0.0], [4.0]]))  # variance 4; PyTorch would take 16 / 2 = 8
    np.testing.assert_allclose(norm.var[...], [0.9 * 1 + 0.1 * 4], rtol=1e-6)
    np.testing.assert_allclose(norm.mean[...], [0.1 * 2], rtol=1e-6)


def test_the_variance_survives_a_large_mean() -> None:
    x = (1000 + 0.01 * np.random.default_rng(0).standard_normal((64, 4, 4, 1))).astype(np.float32)
    true = x.astype(np.float64).var()
    found = {}
    for name, kind in {"ours": BatchNorm, "flax": nnx.BatchNorm}.items():
        norm = kind(1, momentum=0.0, rngs=nnx.Rngs(0))
        norm(jnp.asarray(x))
        found[name] = float(norm.var[0])
    assert found["ours"] == pytest.approx(true, rel=1e-2)  # the mean itself has a unit of 6e-5
    assert found["flax"] != pytest.approx(true, rel=1e-2)  # the difference of two squares


@pytest.mark.parametrize("dtype", [jnp.bfloat16, "bfloat16"])
def test_bfloat16_rounds_the_result_and_keeps_parameters_and_statistics_in_float32(dtype) -> None:
    norm, x = layer(3, dtype=dtype), jnp.asarray(images(4, 5, 6, 3), jnp.bfloat16)
    exact = layer(3)(x.astype(jnp.float32))
    y = norm(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(jnp.float32), exact, rtol=BFLOAT16, atol=FLOAT32)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(norm))} == {jnp.dtype("float32")}


def test_in_eval_mode_bfloat16_does_not_round_the_statistics() -> None:
    x = jnp.full((1, 1, 1, 1), 258, jnp.bfloat16)  # bfloat16 has 256 and 258, nothing between
    results = {}
    for name, kind in {"ours": BatchNorm, "flax": nnx.BatchNorm}.items():
        norm = kind(1, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
        norm.mean[...] = jnp.asarray([256.5])
        norm.eval()
        results[name] = float(norm(x)[0, 0, 0, 0])
    assert results["ours"] == pytest.approx(1.5, rel=BFLOAT16)
    assert results["flax"] == pytest.approx(2, rel=BFLOAT16)


def test_while_tracing_no_array_is_asked_for_its_sharding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self) -> None:
        raise RuntimeError("JAX would search the whole program for an error message")

    graph, state = nnx.split(layer(3))
    monkeypatch.setattr(jax.core.Tracer, "sharding", property(refuse))

    def run(state: nnx.State, x: jax.Array) -> tuple[jax.Array, nnx.State]:
        norm = nnx.merge(graph, state, copy=True)
        return norm(x), nnx.state(norm, nnx.BatchStat)

    y, statistics = jax.eval_shape(run, state, jax.ShapeDtypeStruct((2, 4, 4, 3), jnp.float32))
    assert y.shape == (2, 4, 4, 3) and len(jax.tree.leaves(statistics)) == 2
