"""One seed's share of training: where it stands, what is kept and recorded of it, and how it ends."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from .inference import all_finite
from .keeper import Keeper
from .position import Position
from .recipe import Recipe
from .state import TrainState

DIVERGED = "diverged"  # the event, and the first word of the stop reason


class TrainingDiverged(ArithmeticError):
    """A parameter or a loss is not a finite number any more.

    Args:
        text: what happened and what to do, one line.
        position: where the run ended, with that epoch as the last of its history and a `stop_reason`.
    """

    def __init__(self, text: str, position: Position | None = None):
        super().__init__(text)
        self.position = position


@dataclass(frozen=True)
class Outcome:
    """What a run gives back.

    Attributes:
        best: the network of the best epoch, in evaluation mode.
        last: the state after the last step.
        position: history, counters, seconds, stop reason.
        interrupted: whether somebody asked it to stop before the end.
    """

    best: nnx.Module
    last: TrainState
    position: Position
    interrupted: bool


class SeedRun:
    """The books of one seed, whether it trains alone or beside others.

    Args:
        recipe: how it is trained.
        monitor_name: "test" or "validation", for the records.
        seed: of noise, dropout and shuffling.
        position: where it stands; changed in place.
        keeper: of its best and last.

    Attributes:
        last: its state at its stop; None before.
        error: how it diverged; None while it has not.
    """

    def __init__(self, recipe: Recipe, monitor_name: str, seed: int, position: Position, keeper: Keeper):
        self._recipe, self._monitor_name = recipe, monitor_name
        self.seed, self.position, self.keeper = seed, position, keeper
        self.last: TrainState | None = None
        self.error: TrainingDiverged | None = None

    @property
    def live(self) -> bool:
        """Whether it goes on training."""
        return self.position.stop_reason is None

    def close_epoch(self, state: TrainState, monitored: tuple[float, float], rate: float, start: float) -> dict:
        """Judge an epoch: apply the rule, keep the best, record, and find out whether this was the last one.

        Args:
            state: its own, after the epoch.
            monitored: loss and accuracy of `state` on the monitored images.
            rate: the learning rate of the epoch.
            start: the clock (`time.perf_counter`) before these were found out.

        Returns:
            The record of the epoch. On a number that is not finite, `error` is set and the best is on disk.
        """
        position, (loss, accuracy) = self.position, monitored
        loss_sum, correct, images = position.sums
        train_accuracy, train_seconds = correct / images, position.epoch_seconds
        reached = train_accuracy >= self._recipe.target_train_accuracy
        diverged = not (math.isfinite(loss_sum) and bool(all_finite((state.params, loss))))
        position.epoch += 1
        if diverged:
            accuracy = accuracy if math.isfinite(loss) else math.nan  # else it is that of the first class
        else:
            position.plateau = position.plateau.update(accuracy)
            if position.plateau.improved:
                self.keeper.keep_best(state, position)
        seconds = train_seconds + time.perf_counter() - start
        record = {
            "epoch": position.epoch,
            "train_loss": loss_sum / images,
            "train_accuracy": train_accuracy,
            "monitor": self._monitor_name,
            "loss": loss,
            "accuracy": accuracy,
            "learning_rate": rate,
            "best_accuracy": position.best[0],
            "best_epoch": position.best[1],
            "seconds": seconds,
            "images_per_second": images / max(train_seconds, 1e-9),
            "event": DIVERGED if diverged else "target" if reached else position.plateau.event,
        }
        position.history.append(record)
        position.train_seconds += seconds
        position.step, position.sums, position.epoch_seconds = 0, (0.0, 0, 0), 0.0
        if diverged:
            self.keeper.save_best()
            self.error = self._divergence()
        else:
            position.stop_reason = _stop_reason(self._recipe, position)
        self.keeper.record(record)
        return record

    def save(self, state: TrainState, *, wait: bool) -> None:
        """Write best and last, which is `state`, its own; `wait` until they are on the disk."""
        self.keeper.save(state, self.position, wait=wait)
        if not self.live:
            self.last = state

    def outcome(self, state: TrainState, *, interrupted: bool) -> Outcome:
        """Return what the run gives back; `state` is its own, for one that has not stopped."""
        last = state if self.last is None else self.last
        # Copies, since what is put on a CPU may share the host's memory; their programs began the run.
        params, extra = jax.tree.map(jnp.copy, jax.device_put(self.keeper.best))
        best = last.structure.merge(params, extra, train=False)
        return Outcome(best, last, self.position, interrupted and self.live)

    def stop_text(self) -> str:
        """Why it stopped, or where it was interrupted, as listeners hear it."""
        if self.error is not None:
            return f"{DIVERGED} in epoch {self.position.epoch}"
        return self.position.stop_reason or f"interrupted in epoch {self.position.epoch + 1}"

    def _divergence(self) -> TrainingDiverged:
        """Set the reason of the end and return it as an error that says what is left and what to do."""
        position, keeper = self.position, self.keeper
        when = f"in epoch {position.epoch} (training loss {position.history[-1]['train_loss']:.4g})"
        advice = f"do lower learning_rate ({position.plateau.learning_rate:g})"
        kept = "no earlier epoch is kept"
        if position.plateau.best_epoch:
            where = f" in {keeper.folder.checkpoints}" if keeper.folder else ""
            kept = f"epoch {position.plateau.best_epoch} ({position.plateau.best:.2%}) is kept{where}"
        position.stop_reason = f"{DIVERGED} {when}; {advice}"
        text = f"Expected finite parameters and losses, got NaN or infinity {when}; {kept}; {advice}."
        return TrainingDiverged(text, position)


def _stop_reason(recipe: Recipe, position: Position) -> str | None:
    plateau = position.plateau
    if plateau.event == "target":
        return f"reached the target accuracy of {plateau.target:.1%} in epoch {position.epoch}"
    if position.history[-1]["event"] == "target":
        return f"reached the training accuracy of {recipe.target_train_accuracy:.1%} in epoch {position.epoch}"
    if plateau.event == "converged":
        waited = plateau.convergence_patience
        return f"converged at epoch {position.epoch}: no improvement for {waited} epochs at the lowest rate"
    if position.epoch >= recipe.epochs:
        return f"completed all {recipe.epochs} epochs"
    return None
