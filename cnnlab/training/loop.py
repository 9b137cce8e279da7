"""The loop: epochs, monitoring, the plateau rule, checkpoints."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
from flax import nnx

from cnnlab.data import Split
from cnnlab.data.augmentation import build_augmentation

from .callbacks import Callback, Callbacks
from .checks import count_classes, expect_labels, label_range
from .epoch import Epoch, epoch_order, put_on_device, steps_per_epoch
from .groups import expect_groups
from .inference import all_finite, infer, score
from .interrupt import StopRequest
from .keeper import Keeper
from .optimizer import learning_rate_schedule, make_optimizer
from .position import Position
from .recipe import Recipe, RecipeError
from .run_folder import RunFolder
from .state import TrainState, split_model
from .step import cross_entropy, make_train_step

DIVERGED = "diverged"  # the event, and the first word of the stop reason
_SECONDS_BETWEEN_REPORTS = 0.5
_FIRST_STEPS = 20


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


class Trainer:
    """Trains networks of one architecture by one recipe on one data set; compiles once for all seeds.

    Args:
        recipe: how.
        train: training images, uint8 `[n, h, w, c]`, and labels.
        monitor: images that steer the rate and choose the best epoch.
        monitor_name: "test" or "validation", for the records.
    """

    def __init__(self, recipe: Recipe, train: Split, monitor: Split, monitor_name: str):
        for name, split in (("training", train), (monitor_name, monitor)):
            if len(split) == 0:
                raise RecipeError(f"Expected at least one {name} image, got none; do hold out fewer images.")
        self.recipe = recipe
        self.monitor_name = monitor_name
        self._labels = {"training": label_range(train), monitor_name: label_range(monitor)}
        self._train, self._monitor = put_on_device(train), put_on_device(monitor)
        keep = recipe.last_batch == "keep"
        self._steps = steps_per_epoch(len(train), recipe.batch_size, keep_last=keep)
        if self._steps == 0:
            raise RecipeError(
                f"Expected at least one batch of {recipe.batch_size} in {len(train)} training images; "
                'do lower batch_size or set last_batch = "keep".'
            )
        self._tx = make_optimizer(recipe, self._steps)
        self._rate = learning_rate_schedule(recipe, self._steps)
        self._loss = partial(cross_entropy, label_smoothing=recipe.label_smoothing)
        augmented = recipe.noise or recipe.flip or recipe.crop
        step = make_train_step(
            self._tx,
            loss=self._loss,
            augment=build_augmentation(noise=recipe.noise, flip=recipe.flip, crop=recipe.crop) if augmented else None,
            jit=False,
        )
        self._epoch = Epoch(step, recipe.batch_size, keep_last=keep)
        self._rate_of_progress = 0.0  # steps per second

    def run(
        self,
        model: nnx.Module,
        *,
        seed: int = 0,
        folder: RunFolder | None = None,
        callbacks: Iterable[Callback] = (),
        resume: bool = False,
    ) -> Outcome:
        """Train `model` (its arrays are copied, not changed) until the recipe says to stop.

        Args:
            model: the network with its initial weights.
            seed: of noise, dropout and shuffling.
            folder: where checkpoints and metrics go; None keeps everything in memory.
            callbacks: listeners.
            resume: go on from the folder's last checkpoint, with the seed that is in it.

        Raises:
            TrainingDiverged: a parameter or loss is not finite; the best checkpoint is kept.
            ValueError: the network cannot take the images or has no class for a label, or the seed is none.
            RunFolderError: another process trains in the folder.
        """
        with folder.lock if folder is not None else nullcontext():
            return self._run(model, seed, folder, Callbacks(callbacks), resume)

    def _run(self, model: nnx.Module, seed: int, folder: RunFolder | None, listener: Callback, resume: bool) -> Outcome:
        freeze = self.recipe.freeze
        expect_groups(model, self.recipe)
        state = TrainState.create(model, self._tx, seed=seed, freeze=freeze)
        self._expect_fitting(state)
        position = Position.start(self.recipe)
        keeper = Keeper(folder, split_model(model, freeze)[1:])
        if resume:
            state, position = keeper.restore(state)
            seed = int(state.seed)
        else:
            keeper.start()
        listener.on_start(self._describe(state, position, seed))
        interrupted = False
        try:
            with StopRequest() as stop:
                self._compile(state, position, seed, listener)
                while position.stop_reason is None and not interrupted:
                    state, finished = self._run_epoch(state, position, seed, listener, stop)
                    if finished:
                        self._close_epoch(state, position, keeper, listener)
                    interrupted = stop.requested and position.stop_reason is None
                    keeper.save(state, position, force=interrupted or position.stop_reason is not None)
        finally:
            keeper.close()
        listener.on_stop(position.stop_reason or f"interrupted in epoch {position.epoch + 1}")
        params, extra = keeper.best
        best = state.structure.merge(jax.tree.map(jnp.asarray, params), jax.tree.map(jnp.asarray, extra), train=False)
        return Outcome(best, state, position, interrupted)

    def _expect_fitting(self, state: TrainState) -> None:
        """Raise ValueError for images the network cannot take, and for labels that are none of its classes."""
        shapes = {"training": self._train.images.shape[1:], self.monitor_name: self._monitor.images.shape[1:]}
        classes = {s: count_classes(state.structure, state.params, state.extra, s) for s in set(shapes.values())}
        for name, shape in shapes.items():
            expect_labels(name, self._labels[name], classes[shape])

    def _describe(self, state: TrainState, position: Position, seed: int) -> dict[str, Any]:
        return {
            "recipe": self.recipe,
            "seed": seed,
            "parameters": sum(int(p.size) for p in jax.tree.leaves(nnx.state(state.model, nnx.Param))),
            "trained": sum(int(p.size) for p in jax.tree.leaves(state.params)),
            "train_images": len(self._train),
            "monitor_images": len(self._monitor),
            "monitor": self.monitor_name,
            "steps_per_epoch": self._steps,
            "epochs": self.recipe.epochs,
            "epoch": position.epoch,
        }

    def _compile(self, state: TrainState, position: Position, seed: int, listener: Callback) -> None:
        if position.stop_reason is not None:
            return
        listener.on_compile(None)
        start = time.perf_counter()
        self._epoch.compile(state, self._train, self._order(seed, position.epoch + 1))
        self._evaluate(state)
        seconds = time.perf_counter() - start
        position.compile_seconds += seconds
        listener.on_compile(seconds)

    def _order(self, seed: int, epoch: int) -> jax.Array | None:
        return epoch_order(self.recipe.order, seed, epoch, len(self._train))

    def _run_epoch(
        self, state: TrainState, position: Position, seed: int, listener: Callback, stop: StopRequest
    ) -> tuple[TrainState, bool]:
        """Run steps until the epoch ends or a stop is asked for; tell whether the epoch has ended."""
        if self.recipe.schedule == "plateau":
            scale = jnp.asarray(position.plateau.learning_rate, jnp.float32)
            state = dataclasses.replace(state, learning_rate_scale=scale)
        order, totals = self._order(seed, position.epoch + 1), position.totals()
        while position.step < self._steps and not stop.requested:
            start = time.perf_counter()
            count = max(round(self._rate_of_progress * _SECONDS_BETWEEN_REPORTS), 1)
            if not self._rate_of_progress:
                count = _FIRST_STEPS
            upto = min(position.step + count, self._steps)
            if self._steps - upto < count // 4:
                upto = self._steps
            state, totals = self._epoch.run(state, totals, self._train, order, position.step, upto)
            loss_sum, correct, images = jax.device_get(totals)
            seconds = time.perf_counter() - start
            self._rate_of_progress = (upto - position.step) / max(seconds, 1e-6)
            position.step, position.sums = upto, (float(loss_sum), int(correct), int(images))
            position.epoch_seconds += seconds
            listener.on_steps(position.epoch + 1, position.step, self._steps)
        return state, position.step == self._steps

    def _evaluate(self, state: TrainState) -> tuple[float, float]:
        """Return loss and accuracy over the monitored images."""
        logits = infer(state.structure, state.params, state.extra, self._monitor.images)  # pyright: ignore[reportArgumentType]
        metrics = jax.device_get(score(logits, self._monitor.labels, loss=cross_entropy))  # pyright: ignore[reportArgumentType]
        return float(metrics.loss_sum) / int(metrics.count), int(metrics.correct) / int(metrics.count)

    def _close_epoch(self, state: TrainState, position: Position, keeper: Keeper, listener: Callback) -> None:
        """Evaluate, apply the rule, keep the best, record; raise TrainingDiverged on a non-finite number."""
        start = time.perf_counter()
        loss, accuracy = self._evaluate(state)
        loss_sum, correct, images = position.sums
        diverged = not (math.isfinite(loss_sum) and bool(all_finite((state.params, loss))))
        train_seconds = position.epoch_seconds
        position.epoch += 1
        rate = position.plateau.learning_rate
        if self.recipe.schedule != "plateau":
            rate = float(jnp.asarray(self._rate(int(state.step) - 1)))
        if diverged:
            accuracy = accuracy if math.isfinite(loss) else math.nan  # else it is that of the first class
        else:
            position.plateau = position.plateau.update(accuracy)
            if position.plateau.improved:
                keeper.keep_best(state, position)
        seconds = train_seconds + time.perf_counter() - start
        record = {
            "epoch": position.epoch,
            "train_loss": loss_sum / images,
            "train_accuracy": correct / images,
            "monitor": self.monitor_name,
            "loss": loss,
            "accuracy": accuracy,
            "learning_rate": rate,
            "best_accuracy": position.best[0],
            "best_epoch": position.best[1],
            "seconds": seconds,
            "images_per_second": images / max(train_seconds, 1e-9),
            "event": DIVERGED if diverged else position.plateau.event,
        }
        position.history.append(record)
        position.train_seconds += seconds
        position.step, position.sums, position.epoch_seconds = 0, (0.0, 0, 0), 0.0
        if diverged:
            self._diverge(position, keeper, listener)
        position.stop_reason = _stop_reason(self.recipe, position)
        keeper.record(record)
        listener.on_epoch(record)

    def _diverge(self, position: Position, keeper: Keeper, listener: Callback) -> NoReturn:
        """Leave the best epoch, the record and the reason behind, and raise."""
        keeper.save_best()
        keeper.record(position.history[-1])
        when = f"in epoch {position.epoch} (training loss {position.history[-1]['train_loss']:.4g})"
        advice = f"do lower learning_rate ({position.plateau.learning_rate:g})"
        kept = "no earlier epoch is kept"
        if position.plateau.best_epoch:
            where = f" in {keeper.folder.checkpoints}" if keeper.folder else ""
            kept = f"epoch {position.plateau.best_epoch} ({position.plateau.best:.2%}) is kept{where}"
        position.stop_reason = f"{DIVERGED} {when}; {advice}"
        listener.on_stop(f"{DIVERGED} in epoch {position.epoch}")
        text = f"Expected finite parameters and losses, got NaN or infinity {when}; {kept}; {advice}."
        raise TrainingDiverged(text, position)


def _stop_reason(recipe: Recipe, position: Position) -> str | None:
    plateau = position.plateau
    if plateau.event == "target":
        return f"reached the target accuracy of {plateau.target:.1%} in epoch {position.epoch}"
    if plateau.event == "converged":
        waited = plateau.convergence_patience
        return f"converged at epoch {position.epoch}: no improvement for {waited} epochs at the lowest rate"
    if position.epoch >= recipe.epochs:
        return f"completed all {recipe.epochs} epochs"
    return None
