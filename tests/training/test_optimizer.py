"""Optimisers against formulas in NumPy (float64, rtol 1e-6) and against PyTorch in float64 (rtol 1e-5)."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnlab.training import Plateau, Recipe, RecipeError, list_recipes, make_optimizer

RNG = np.random.default_rng(0)
START = {"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)}
GRADIENTS = [{"kernel": RNG.normal(size=(3, 2)), "bias": RNG.normal(size=2)} for _ in range(8)]


def optimized(
    recipe: Recipe, scales: list[float], steps_per_epoch: int = 2, gradients: list = GRADIENTS
) -> dict[str, np.ndarray]:
    """Weights after one update per scale, which multiplies the update as the training step does."""
    tx = make_optimizer(recipe, steps_per_epoch)
    params = jax.tree.map(jnp.float32, START)
    state, update = tx.init(params), jax.jit(tx.update)
    for gradient, scale in zip(gradients, scales, strict=True):
        updates, state = update(jax.tree.map(jnp.float32, gradient), state, params)
        params = jax.tree.map(lambda p, u, scale=scale: p + u * jnp.float32(scale), params, updates)
    return jax.tree.map(np.asarray, params)


def by_hand(
    rates: list[float], rho: float, decay: dict[str, float] | None = None, nesterov: bool = False, gradients=GRADIENTS
) -> dict[str, np.ndarray]:
    params = {name: value.copy() for name, value in START.items()}
    velocity = {name: np.zeros_like(value) for name, value in START.items()}
    for gradient, rate in zip(gradients, rates, strict=True):
        for name, weight in params.items():
            g = gradient[name] + (decay or {}).get(name, 0.0) * weight
            velocity[name] = rho * velocity[name] + g
            params[name] = weight - rate * (g + rho * velocity[name] if nesterov else velocity[name])
    return params


def assert_close(got, expected, rtol=1e-6):
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=rtol, atol=rtol / 10, err_msg=name)


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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
def test_weight_decay_spares_the_biases_and_scales_of_norms_too(optimizer):
    rng = np.random.default_rng(1)
    shapes = {"conv": {"kernel": (3, 3, 2, 4), "bias": (4,)}, "norm": {"scale": (4,), "bias": (4,)}}
    params = {layer: {name: jnp.float32(rng.normal(size=s)) for name, s in of.items()} for layer, of in shapes.items()}
    tx = make_optimizer(Recipe(optimizer=optimizer, schedule="constant", learning_rate=0.1, weight_decay=0.5), 2)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = jax.jit(tx.update)(zeros, tx.init(params), params)
    moved = {f"{layer}.{name}" for layer, of in updates.items() for name, u in of.items() if jnp.abs(u).max() > 0}
    assert moved == {"conv.kernel"}


def test_nesterov_looks_one_step_ahead():
    got = optimized(Recipe(schedule="constant", learning_rate=0.1, nesterov=True), [1.0] * 8)
    assert_close(got, by_hand([0.1] * 8, 0.9, nesterov=True))


def test_constant_is_constant():
    got = optimized(Recipe(schedule="constant", learning_rate=0.2), [1.0] * 8)
    assert_close(got, by_hand([0.2] * 8, 0.9))


def test_the_optimiser_follows_the_cosine_step_by_step():
    recipe = Recipe(schedule="cosine", epochs=4, learning_rate=0.3, warmup_epochs=1)
    rates = [0.0, 0.15] + [0.15 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert_close(optimized(recipe, [1.0] * 8), by_hand(rates, 0.9))


def test_the_optimiser_follows_the_steps_of_a_schedule():
    recipe = Recipe(schedule="step", epochs=4, learning_rate=0.3, milestones=[1, 3], step_divisor=5)
    assert_close(optimized(recipe, [1.0] * 8), by_hand([0.3] * 2 + [0.06] * 4 + [0.012] * 2, 0.9))


def test_every_named_recipe_has_an_optimiser():
    for recipe in list_recipes():
        make_optimizer(recipe.replace(learning_rates={}, weight_decays={}), 1).init(jax.tree.map(jnp.float32, START))


def in_torch(make, gradients=GRADIENTS, before=None) -> dict[str, np.ndarray]:
    """Weights after PyTorch's optimiser, in float64; `make` gets the parameters by name."""
    torch = pytest.importorskip("torch")
    params = {name: torch.tensor(value, requires_grad=True) for name, value in START.items()}
    optimizer = make(torch, params)
    for gradient in gradients:
        for name, param in params.items():
            param.grad = torch.tensor(gradient[name])
        if before:
            before(torch, list(params.values()))
        optimizer.step()
    return {name: param.detach().numpy() for name, param in params.items()}


@pytest.mark.parametrize("nesterov", [False, True])
def test_stochastic_gradient_descent_is_that_of_pytorch(nesterov):
    recipe = Recipe(schedule="constant", learning_rate=0.1, nesterov=nesterov, weight_decay=0.5)
    expected = in_torch(
        lambda torch, p: torch.optim.SGD(
            [{"params": [p["kernel"]], "weight_decay": 0.5}, {"params": [p["bias"]], "weight_decay": 0.0}],
            lr=0.1,
            momentum=0.9,
            nesterov=nesterov,
        )
    )
    assert_close(optimized(recipe, [1.0] * 8), expected, rtol=1e-5)


def test_adamw_is_that_of_pytorch():
    recipe = Recipe(
        optimizer="adamw", schedule="constant", learning_rate=0.1, momentum=0.8, beta2=0.95, weight_decay=0.5
    )
    expected = in_torch(
        lambda torch, p: torch.optim.AdamW(
            [{"params": [p["kernel"]], "weight_decay": 0.5}, {"params": [p["bias"]], "weight_decay": 0.0}],
            lr=0.1,
            betas=(0.8, 0.95),
        )
    )
    assert_close(optimized(recipe, [1.0] * 8), expected, rtol=1e-5)


def test_under_the_plateau_rule_the_decay_of_adamw_follows_the_rate_too():
    recipe = Recipe(optimizer="adamw", learning_rate=0.1, weight_decay=0.5)
    inside = optimized(recipe.replace(schedule="constant"), [1.0] * 8)
    assert_close(optimized(recipe, [0.1] * 8), inside)


def test_a_group_with_64_times_the_rate_and_a_64th_of_the_decay_is_the_group_of_pytorch():
    """The groups of airbench94, whose loss is the sum over a batch; ours is the mean: rate and decay trade its size."""
    batch, rate, decay = 8.0, 0.01, 0.8
    recipe = Recipe(
        schedule="constant",
        learning_rate=rate * batch,
        momentum=0.85,
        nesterov=True,
        weight_decay=decay / batch,
        learning_rates={"bias": 64},
        weight_decays={"bias": 1 / 64},
    )
    expected = in_torch(
        lambda torch, p: torch.optim.SGD(
            [
                {"params": [p["kernel"]], "lr": rate, "weight_decay": decay},
                {"params": [p["bias"]], "lr": rate * 64, "weight_decay": decay / 64},
            ],
            momentum=0.85,
            nesterov=True,
        ),
        [{name: g * batch for name, g in gradient.items()} for gradient in GRADIENTS],
    )
    assert_close(optimized(recipe, [1.0] * 8), expected, rtol=1e-5)


def test_the_decay_of_a_group_is_its_own_and_zero_spares_it():
    recipe = Recipe(schedule="constant", learning_rate=0.1, weight_decay=0.5, weight_decays={"*": 1, "kernel": 0})
    assert_close(optimized(recipe, [1.0] * 8), by_hand([0.1] * 8, 0.9, {"bias": 0.5}))


def test_clipping_is_that_of_pytorch_and_leaves_short_gradients_alone():
    norms = [math.sqrt(sum((g**2).sum() for g in gradient.values())) for gradient in GRADIENTS]
    limit = sorted(norms)[4]
    recipe = Recipe(schedule="constant", learning_rate=0.1, weight_decay=0.5, clip_norm=limit)
    expected = in_torch(
        lambda torch, p: torch.optim.SGD(
            [{"params": [p["kernel"]], "weight_decay": 0.5}, {"params": [p["bias"]]}], lr=0.1, momentum=0.9
        ),
        before=lambda torch, params: torch.nn.utils.clip_grad_norm_(params, limit),
    )
    assert_close(optimized(recipe, [1.0] * 8), expected, rtol=1e-5)
    assert np.abs(optimized(recipe.replace(clip_norm=0), [1.0] * 8)["bias"] - expected["bias"]).max() > 0.01


def test_accumulation_makes_one_update_of_the_mean_gradient_of_several_batches():
    recipe = Recipe(schedule="linear", epochs=4, learning_rate=0.1, accumulate=2, clip_norm=1.0)
    means = [jax.tree.map(lambda a, b: (a + b) / 2, *GRADIENTS[i : i + 2]) for i in range(0, 8, 2)]
    for mean in means:
        norm = math.sqrt(sum((g**2).sum() for g in mean.values()))
        for name in mean:
            mean[name] = mean[name] * min(1.0, 1.0 / norm)  # the mean is clipped, not its parts
    rates = [0.1, 0.075, 0.05, 0.025]
    assert_close(optimized(recipe, [1.0] * 8), by_hand(rates, 0.9, gradients=means), rtol=1e-5)


def test_between_two_updates_the_weights_stay():
    recipe = Recipe(schedule="constant", learning_rate=0.1, accumulate=3, weight_decay=0.5)
    for name, value in optimized(recipe, [1.0] * 2, gradients=GRADIENTS[:2]).items():
        np.testing.assert_array_equal(value, np.float32(START[name]))


@pytest.mark.parametrize("field", ["learning_rates", "weight_decays"])
def test_a_pattern_that_matches_nothing_is_an_error_before_the_first_update(field):
    recipe = Recipe(weight_decay=0.1, **{field: {"kernle": 2.0}})
    text = f"Expected every pattern of {field} to match a parameter, got 'kernle'; did you mean kernel"
    with pytest.raises(RecipeError, match=text):
        make_optimizer(recipe, 1).init(jax.tree.map(jnp.float32, START))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw", "clip_norm": 1.0, "weight_decay": 0.1},
        {"nesterov": True, "accumulate": 2, "schedule": "one-cycle", "warmup_epochs": 1.0},
        {"optimizer": "muon", "schedule": "cosine", "weight_decay": 0.1, "muon_normalize": True},
    ],
    ids=lambda changes: changes.get("optimizer", "sgd"),
)
def test_an_optimiser_goes_round_inside_a_loop_of_one_program(changes):
    """The state comes back with the types it went in with, and the loop equals single steps."""
    recipe = Recipe(epochs=4, learning_rate=0.1, **changes)
    tx, gradients = make_optimizer(recipe, 2), jax.tree.map(lambda *g: jnp.float32(np.stack(g)), *GRADIENTS)
    params = jax.tree.map(jnp.float32, START)

    def body(i, carry):
        params, state = carry
        updates, state = tx.update(jax.tree.map(lambda g: g[i], gradients), state, params)
        return optax.apply_updates(params, updates), state

    looped, _ = jax.jit(lambda p: jax.lax.fori_loop(0, 8, body, (p, tx.init(p))))(params)
    assert_close(jax.tree.map(np.asarray, looped), optimized(recipe, [1.0] * 8), rtol=1e-5)
