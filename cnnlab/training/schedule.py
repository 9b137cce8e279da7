"""The learning rate along a run, as a function of the number of updates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from .recipe import Recipe


def learning_rate_schedule(recipe: Recipe, steps_per_epoch: int, *, peak: float | None = None) -> optax.Schedule:
    """Return the rate inside the optimiser as a function of the updates done before.

    With the highest rate p, W updates of warm-up and T updates in all, from update W to T:

    - "constant": p.
    - "step": p, divided at each milestone.
    - "linear": from p to `final_rate` p in a straight line.
    - "cosine", "one-cycle": from p to `final_rate` p along half a cosine.

    Before W the rate rises from `warmup_start` p to p: along half a cosine for "one-cycle", else in a straight line.
    Under "plateau" it is 1, since `TrainState.learning_rate_scale` carries the rate. An epoch has
    `steps_per_epoch / accumulate` updates; W and the milestones are rounded to whole ones, T is rounded down. The end
    is reached at update T, one past the last.

    Sources: I. Loshchilov and F. Hutter, "SGDR", 2016, arXiv:1608.03983 (cosine); P. Goyal et al., "Accurate, Large
    Minibatch SGD", 2017, arXiv:1706.02677 (warm-up); L. Smith and N. Topin, "Super-Convergence", 2017, arXiv:1708.07120
    (one cycle, here without its third phase and with a constant momentum).

    Args:
        recipe: its schedule.
        steps_per_epoch: training steps, which are batches, in an epoch.
        peak: the highest rate where it is not `learning_rate`; under "plateau" the result is their ratio.
    """
    peak = recipe.learning_rate if peak is None else peak
    if recipe.schedule == "plateau":
        return optax.constant_schedule(peak / recipe.learning_rate)
    per_epoch = steps_per_epoch / recipe.accumulate
    warmup = round(recipe.warmup_epochs * per_epoch)
    total = max(recipe.epochs * steps_per_epoch // recipe.accumulate, warmup + 1)
    start, end = recipe.warmup_start * peak, recipe.final_rate * peak
    if recipe.schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(start, peak, warmup, total, end)
    rise = optax.linear_schedule
    if recipe.schedule == "one-cycle":
        rise, fall = _half_cosine, _half_cosine(peak, end, total - warmup)
    elif recipe.schedule == "linear":
        fall = optax.linear_schedule(peak, end, total - warmup)
    elif recipe.schedule == "step":
        fall = _steps(peak, [round(epoch * per_epoch) - warmup for epoch in recipe.milestones], recipe.step_divisor)
    else:
        fall = optax.constant_schedule(peak)
    return optax.join_schedules([rise(start, peak, warmup), fall], [warmup]) if warmup else fall


def _steps(start: float, boundaries: list[int], divisor: float) -> optax.Schedule:
    scales: dict[int, float] = {}
    for boundary in boundaries:  # two milestones may fall on one update
        scales[boundary] = scales.get(boundary, 1.0) / divisor
    return optax.piecewise_constant_schedule(start, scales)


def _half_cosine(start: float, end: float, steps: int) -> optax.Schedule:
    def rate(count: jax.typing.ArrayLike) -> jax.Array:
        share = jnp.clip(jnp.asarray(count) / steps, 0.0, 1.0)
        return end + (start - end) * 0.5 * (1.0 + jnp.cos(jnp.pi * share))

    return rate
