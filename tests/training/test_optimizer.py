"""Stochastic gradient descent with momentum, against the formulas in NumPy (float64, rtol 1e-6)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnlab.training import Plateau, Recipe, get_recipe, make_optimizer
from cnnlab.training.optimizer import learning_rate_schedule

RNG = np.random.default_rng(0)
START = {"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)}
GRADIENTS = [{"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)} for _ in range(8)]


def optimized(recipe: Recipe, scales: list[float], steps_per_epoch: int = 2) -> dict[str, np.ndarray]:
    """Weights after one update per scale, which multiplies the update as the training step does."""
    tx = make_optimizer(recipe, steps_per_epoch)
    params = jax.tree.map(jnp.float32, START)
    state = tx.init(params)
    for gradient, scale in zip(GRADIENTS, scales, strict=True):
        updates, state = tx.update(jax.tree.map(jnp.float32, gradient), state, params)
        params = optax.apply_updates(params, jax.tree.map(lambda u, scale=scale: u * jnp.float32(scale), updates))
    return jax.tree.map(np.asarray, params)


def by_hand(rates: list[float], rho: float, decay: dict[str, float] | None = None, nesterov: bool = False):
    params = {name: value.copy() for name, value in START.items()}
    velocity = {name: np.zeros_like(value) for name, value in START.items()}
    for gradient, rate in zip(GRADIENTS, rates, strict=True):
        for name, weight in params.items():
            g = gradient[name] + (decay or {}).get(name, 0.0) * weight
            velocity[name] = rho * velocity[name] + g
            params[name] = weight - rate * (g + rho * velocity[name] if nesterov else velocity[name])
    return params


def assert_close(got, expected):
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-6, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("rho", [0.9, 0.0])
def test_under_the_plateau_rule_a_cut_acts_at_once_on_old_momentum(rho):
    rates = [0.1] * 4 + [0.01] * 4
    got = optimized(Recipe(momentum=rho, learning_rate=0.1), rates)
    assert_close(got, by_hand(rates, rho))


def test_a_rate_inside_the_velocity_would_be_something_else():
    """Negative control: v = rho v + rate g; w -= v carries the old rate on, which is not the thesis' form."""
    velocity, bias = 0.0, START["bias"]
    rates = [0.1] * 4 + [0.01] * 4
    for gradient, rate in zip(GRADIENTS, rates, strict=True):
        velocity = 0.9 * velocity + rate * gradient["bias"]
        bias = bias - velocity
    assert np.abs(bias - optimized(Recipe(learning_rate=0.1), rates)["bias"]).max() > 0.01


def test_the_rates_of_the_plateau_fit_float32_and_leave_the_weights_finite():
    rule, rates = Plateau(learning_rate=0.01, patience=1), []
    for accuracy in [0.5] + [0.4] * 7:
        rates.append(rule.learning_rate)
        rule = rule.update(accuracy)
    assert_close(optimized(Recipe(), rates), by_hand(rates, 0.9))


def test_weight_decay_reaches_weights_and_spares_biases():
    got = optimized(Recipe(schedule="constant", learning_rate=0.1, weight_decay=0.5), [1.0] * 8)
    assert_close(got, by_hand([0.1] * 8, 0.9, {"kernel": 0.5}))
    without = optimized(Recipe(schedule="constant", learning_rate=0.1), [1.0] * 8)
    np.testing.assert_array_equal(got["bias"], without["bias"])
    assert np.abs(got["kernel"] - without["kernel"]).max() > 0.01


def test_nesterov_looks_one_step_ahead():
    got = optimized(Recipe(schedule="constant", learning_rate=0.1, nesterov=True), [1.0] * 8)
    assert_close(got, by_hand([0.1] * 8, 0.9, nesterov=True))


def test_constant_is_constant():
    got = optimized(Recipe(schedule="constant", learning_rate=0.2), [1.0] * 8)
    assert_close(got, by_hand([0.2] * 8, 0.9))


def cosine_by_hand(step: int, peak: float, warmup: int, total: int) -> float:
    if step < warmup:
        return peak * step / warmup
    return 0.5 * peak * (1 + math.cos(math.pi * min((step - warmup) / (total - warmup), 1)))


@pytest.mark.parametrize(("epochs", "per_epoch", "warmup"), [(5, 10, 1.5), (2, 7, 0), (1, 3, 0.5)])
def test_cosine_rises_linearly_and_falls_to_zero(epochs, per_epoch, warmup):
    recipe = Recipe(schedule="cosine", epochs=epochs, learning_rate=0.3, warmup_epochs=warmup)
    rate = learning_rate_schedule(recipe, per_epoch)
    total = epochs * per_epoch
    expected = [cosine_by_hand(step, 0.3, round(warmup * per_epoch), total) for step in range(total + 2)]
    np.testing.assert_allclose([float(rate(step)) for step in range(total + 2)], expected, rtol=1e-6, atol=1e-7)
    assert max(expected) == 0.3 and expected[total] == 0


def test_the_optimiser_follows_the_cosine_step_by_step():
    recipe = Recipe(schedule="cosine", epochs=4, learning_rate=0.3, warmup_epochs=1)
    rates = [cosine_by_hand(step, 0.3, 2, 8) for step in range(8)]
    assert_close(optimized(recipe, [1.0] * 8), by_hand(rates, 0.9))


def test_a_warm_up_that_rounds_up_to_the_whole_run_still_has_rates():
    recipe = Recipe(schedule="cosine", epochs=1, learning_rate=0.3, warmup_epochs=0.9)
    rate = learning_rate_schedule(recipe, 3)
    np.testing.assert_allclose([float(rate(step)) for step in range(4)], [0, 0.1, 0.2, 0.3], rtol=1e-6)


def test_every_named_recipe_has_an_optimiser_and_the_plateau_rate_stays_outside():
    for name in ("thesis", "thesis-held-out"):
        assert float(learning_rate_schedule(get_recipe(name), 10)(5)) == 1.0
    make_optimizer(get_recipe("lenet-modern"), 1).init(jax.tree.map(jnp.float32, START))
