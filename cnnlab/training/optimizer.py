"""From a recipe to the optax optimiser."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from .groups import Path, expect_matches, rate_factor
from .recipe import Recipe


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> optax.GradientTransformation:
    """Build stochastic gradient descent with momentum as the recipe asks.

    Under the "plateau" schedule the optimiser has rate 1 and `TrainState.learning_rate_scale` carries
    the rate, so that a cut acts at once on old momentum too: v = rho v + g; w = w - rate v. Otherwise the
    rate of each step is inside the optimiser and the scale stays 1. The factors of `learning_rates` multiply the
    updates last, whatever the schedule; `init` refuses a pattern that matches none of the parameters it is given, which
    are those that train.

    Args:
        recipe: schedule, rates, momentum, weight decay.
        steps_per_epoch: updates per epoch, for schedules given in epochs.
    """
    parts = []
    if recipe.weight_decay:
        parts.append(optax.add_decayed_weights(recipe.weight_decay, mask=_is_weight))
    rate = learning_rate_schedule(recipe, steps_per_epoch)
    parts.append(optax.sgd(rate, momentum=recipe.momentum or None, nesterov=recipe.nesterov))
    if recipe.learning_rates:
        parts.append(_scale_groups(tuple(recipe.learning_rates)))  # pyright: ignore[reportArgumentType]
    return optax.chain(*parts)


def learning_rate_schedule(recipe: Recipe, steps_per_epoch: int) -> optax.Schedule:
    """Return the rate inside the optimiser as a function of the step (1 under "plateau")."""
    if recipe.schedule == "plateau":
        return optax.constant_schedule(1.0)
    if recipe.schedule == "constant":
        return optax.constant_schedule(recipe.learning_rate)
    warmup = round(recipe.warmup_epochs * steps_per_epoch)
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=recipe.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(recipe.epochs * steps_per_epoch, warmup + 1),
    )


def _scale_groups(learning_rates: tuple[tuple[str, float], ...]) -> optax.GradientTransformation:
    """Multiply each update by the factor of its group."""

    def init(params: optax.Params) -> optax.EmptyState:
        paths = [_keys(path) for path, _ in jax.tree.leaves_with_path(params)]
        expect_matches("learning_rates", [pattern for pattern, _ in learning_rates], paths)
        return optax.EmptyState()

    def scaled(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        return update * jnp.asarray(rate_factor(learning_rates, _keys(path)), update.dtype)

    def update(updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None):
        del params
        return jax.tree.map_with_path(scaled, updates), state

    return optax.GradientTransformation(init, update)


def _keys(path: tuple[Any, ...]) -> Path:
    return tuple(entry.key for entry in path)  # pure nested dictionaries all the way


def _is_weight(params: object) -> object:
    """Mark kernels and matrices; biases and the scales of norms are vectors and stay undecayed."""
    return jax.tree.map(lambda p: p.ndim > 1, params)
