"""The range test: a learning rate that rises until training breaks, and what the losses on the way suggest."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnnlab.data import Split

from .epoch import epoch_order, put_on_device
from .optimizer import make_optimizer
from .recipe import Recipe, RecipeError
from .recipe_step import make_recipe_step
from .state import TrainState
from .step import Batch

_SMOOTHING = 0.9  # share of the old mean of the losses
_BROKEN = 4.0  # a loss of so many times the lowest ends the test
_BELOW_THE_LOWEST = 10.0


@dataclass(frozen=True)
class RateSearch:
    """What the range test has seen.

    Attributes:
        suggestion: a learning rate to train with; `applied` puts it into a recipe.
        rates: the rates that were tried, rising.
        losses: the loss of the batch that each rate met, before the update by that rate.
        smoothed: running means of the losses, from which the suggestion is read.
    """

    suggestion: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]

    def applied(self, recipe: Recipe) -> Recipe:
        """Return the recipe at the suggested rate.

        With "muon" `muon_learning_rate` becomes what it was at the suggestion in the test: both rates are multiplied by
        the same number.

        Args:
            recipe: the one that was tested.
        """
        changes = {"learning_rate": self.suggestion}
        if recipe.optimizer == "muon":
            changes["muon_learning_rate"] = recipe.muon_learning_rate * (self.suggestion / recipe.learning_rate)
        return recipe.replace(**changes)


def search_rate(
    model: nnx.Module, train: Split, recipe: Recipe, *, seed: int = 0, low: float, high: float, steps: int
) -> RateSearch:
    """Run the range test; `cnnlab.find_learning_rate` explains it.

    Args:
        model: the network with its initial weights, which are not changed.
        train: training images, uint8 `[n, h, w, c]`, and labels.
        recipe: its optimiser, batch size, order and augmentation are used; its schedule and averaging are not.
        seed: of noise, dropout and order.
        low: the first rate.
        high: the last.
        steps: updates, each at a rate of its own.

    Raises:
        ValueError: impossible bounds, a recipe with `muon_normalize`, or losses that never fall.
    """
    if not 0 < low < high < math.inf or steps < 2:
        raise ValueError(f"Expected 0 < low < high and 2 steps or more, got {low}, {high} and {steps}; do change them.")
    if recipe.muon_normalize:
        raise RecipeError("Expected a recipe without muon_normalize, got one; do replace(muon_normalize=False).")
    # Under "plateau" the state carries the rate, as a number that changes without compiling anything again.
    recipe = recipe.replace(schedule="plateau", warmup_epochs=0.0, milestones=[], average="none")
    tx = make_optimizer(recipe, 1)
    step = make_recipe_step(tx, recipe, train, 1)
    state = TrainState.create(model, tx, seed=seed, freeze=recipe.freeze)
    batches = _batches(recipe, put_on_device(train), seed)
    rates, losses = [], []
    for rate in np.geomspace(low, high, steps).tolist():
        state = dataclasses.replace(state, learning_rate_scale=jnp.asarray(rate, jnp.float32))
        seen = []
        for _ in range(recipe.accumulate):
            state, metrics = step(state, next(batches))
            seen.append(float(metrics.loss))
        if not math.isfinite(sum(seen)):
            break
        rates.append(rate)
        losses.append(sum(seen) / len(seen))
        smoothed = smooth(losses)
        if smoothed[-1] > _BROKEN * min(smoothed):
            break
    return RateSearch(suggest_rate(rates, losses), tuple(rates), tuple(losses), tuple(smooth(losses)))


def smooth(losses: Sequence[float]) -> list[float]:
    """Return the exponential running means of losses, corrected for their start at zero."""
    mean, means = 0.0, []
    for n, loss in enumerate(losses, start=1):
        mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
        means.append(mean / (1 - _SMOOTHING**n))
    return means


def suggest_rate(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return a tenth of the rate at which the smoothed losses are lowest; ValueError when they never fall."""
    smoothed = smooth(losses)
    lowest = int(np.argmin(smoothed)) if smoothed else 0
    if lowest == 0:
        raise ValueError(
            "Expected losses that fall before they rise, got none that falls; do start at a lower rate (low=), "
            "or look at the data."
        )
    return float(rates[lowest]) / _BELOW_THE_LOWEST


def _batches(recipe: Recipe, train: Split, seed: int) -> Iterator[Batch]:
    """Go round the training images in whole batches, in the recipe's order."""
    images, size = len(train), min(recipe.batch_size, len(train))
    epoch = 0
    while True:
        order = epoch_order(recipe.order, seed, epoch + 1, images)
        order = jnp.arange(images, dtype=jnp.int32) if order is None else order
        for start in range(0, images - size + 1, size):
            index = order[start : start + size]
            batch = {"image": train.images[index], "label": train.labels[index], "index": index}
            yield {**batch, "epoch": jnp.asarray(epoch, jnp.int32)}  # pyright: ignore[reportReturnType]
        epoch += 1
