"""From a recipe to the optax optimiser."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from .groups import expect_matches, path_of, rate_factor
from .muon import is_hidden_weight, rescale_hidden_weights, scale_by_muon
from .recipe import Recipe
from .schedule import learning_rate_schedule

_Factors = tuple[tuple[str, float], ...]


def make_optimizer(recipe: Recipe, steps_per_epoch: int) -> optax.GradientTransformation:
    """Build the recipe's optimiser; it is applied to the mean gradient of `accumulate` batches.

    In this order: the gradient is clipped to `clip_norm`; the rule of the optimiser, with its weight decay, makes an
    update of it at the rate of the schedule; the factors of `learning_rates` multiply whole updates; with
    `muon_normalize` hidden weights are rescaled.

    - "sgd": v <- m v + g + d w;  w <- w - rate v (Nesterov: w - rate (g + d w + m v)). PyTorch's `SGD`.
    - "adamw": w <- w - rate (direction of Adam + d w). PyTorch's `AdamW`, with epsilon 1e-8.
    - "muon": for hidden weights w <- w - rate' (`cnnlab.training.muon.scale_by_muon` + d w); for all others
      v <- m v + g;  w <- w - rate (v + d w), with Nesterov's form of v if the recipe says so.

    Under the "plateau" schedule the optimiser has rate 1 (and Muon `muon_learning_rate / learning_rate`) and
    `TrainState.learning_rate_scale` carries the rate, so that a cut acts at once on old momentum too. Otherwise the
    rate of each update is inside the optimiser and the scale stays 1.

    Sources: I. Sutskever et al., "On the importance of initialization and momentum", 2013; I. Loshchilov and F. Hutter,
    "Decoupled Weight Decay Regularization", 2017, arXiv:1711.05101; R. Pascanu et al., "On the difficulty of training
    recurrent neural networks", 2012, arXiv:1211.5063 (clipping).

    Args:
        recipe: optimiser, schedule, rates, momentum, weight decay.
        steps_per_epoch: training steps per epoch, for schedules given in epochs.

    Returns:
        An optax transformation. Its `init` raises RecipeError for a pattern of `learning_rates` or `weight_decays` that
        matches none of the parameters it is given, which are those that train.
    """
    parts = []
    if recipe.clip_norm:
        parts.append(optax.clip_by_global_norm(recipe.clip_norm))
    parts += _RULES[recipe.optimizer](recipe, steps_per_epoch)
    if recipe.learning_rates:
        parts.append(_scale_groups(tuple(recipe.learning_rates)))  # pyright: ignore[reportArgumentType]
    if recipe.muon_normalize:
        parts.append(rescale_hidden_weights())
    tx = optax.chain(*parts)
    if recipe.accumulate > 1:
        tx = optax.MultiSteps(tx, recipe.accumulate).gradient_transformation()
    return _expecting_matches(recipe, tx)


def _sgd(recipe: Recipe, steps_per_epoch: int) -> list[optax.GradientTransformation]:
    rate = learning_rate_schedule(recipe, steps_per_epoch)
    return [*_decays(recipe), optax.sgd(rate, momentum=recipe.momentum or None, nesterov=recipe.nesterov)]


def _adamw(recipe: Recipe, steps_per_epoch: int) -> list[optax.GradientTransformation]:
    rate = optax.scale_by_learning_rate(learning_rate_schedule(recipe, steps_per_epoch))
    return [optax.scale_by_adam(recipe.momentum, recipe.beta2, eps=1e-8), *_decays(recipe), rate]


def _muon(recipe: Recipe, steps_per_epoch: int) -> list[optax.GradientTransformation]:
    def with_rate(direction: optax.GradientTransformation, peak: float) -> optax.GradientTransformation:
        rate = learning_rate_schedule(recipe, steps_per_epoch, peak=peak)
        return optax.chain(direction, *_decays(recipe), optax.scale_by_learning_rate(rate))

    def labels(params: Any) -> Any:
        return jax.tree.map_with_path(lambda path, p: "muon" if is_hidden_weight(path_of(path), p) else "sgd", params)

    velocity = optax.trace(recipe.momentum, nesterov=recipe.nesterov) if recipe.momentum else optax.identity()
    rules = {
        "muon": with_rate(scale_by_muon(recipe.muon_momentum, recipe.muon_steps), recipe.muon_learning_rate),
        "sgd": with_rate(velocity, recipe.learning_rate),
    }
    return [optax.partition(rules, labels)]  # pyright: ignore[reportArgumentType, reportReturnType]


_RULES = {"sgd": _sgd, "adamw": _adamw, "muon": _muon}


def _decays(recipe: Recipe) -> list[optax.GradientTransformation]:
    """Return the weight decay: one part for each factor that a group of parameters has."""
    if not recipe.weight_decay:
        return []
    groups: _Factors = tuple(recipe.weight_decays)  # pyright: ignore[reportAssignmentType]
    factors = dict.fromkeys([1.0, *(factor for _, factor in groups if factor)])
    return [optax.add_decayed_weights(recipe.weight_decay * f, partial(_decayed_by, groups, f)) for f in factors]


def _decayed_by(groups: _Factors, factor: float, params: Any) -> Any:
    """Mark what decays by a factor: kernels and matrices by 1; biases and the scales of norms, vectors, by 0."""

    def marked(path: tuple[Any, ...], p: jax.Array) -> bool:
        return rate_factor(groups, path_of(path), default=float(p.ndim > 1)) == factor

    return jax.tree.map_with_path(marked, params)


def _scale_groups(groups: _Factors) -> optax.GradientTransformation:
    """Multiply each update by the factor of its group."""

    def scaled(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        return update * jnp.asarray(rate_factor(groups, path_of(path)), update.dtype)

    return optax.stateless(lambda updates, params: jax.tree.map_with_path(scaled, updates))


def _expecting_matches(recipe: Recipe, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Let `init` refuse patterns that match no parameter."""

    def init(params: optax.Params) -> optax.OptState:
        paths = [path_of(path) for path, _ in jax.tree.leaves_with_path(params)]
        for field in ("learning_rates", "weight_decays"):
            expect_matches(field, [pattern for pattern, _ in getattr(recipe, field)], paths)
        return tx.init(params)

    return optax.GradientTransformation(init, tx.update)
