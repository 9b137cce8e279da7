"""The loop: epochs, monitoring, the plateau rule, checkpoints; for one seed or for several at once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnnlab.data import Split

from .callbacks import Callback, Callbacks
from .checks import count_classes, expect_labels, label_range
from .epoch import Epoch, epoch_order, put_on_device, steps_per_epoch
from .groups import expect_groups
from .inference import infer, score
from .interrupt import StopRequest
from .keeper import Keeper, SaveTimes
from .lanes import Lanes
from .many_seeds import no_memory, stack
from .optimizer import learning_rate_schedule, make_optimizer
from .position import Position
from .recipe import Recipe, RecipeError
from .recipe_step import make_recipe_step
from .run_folder import RunFolder
from .seed_run import DIVERGED as DIVERGED
from .seed_run import Outcome as Outcome
from .seed_run import SeedRun
from .seed_run import TrainingDiverged as TrainingDiverged
from .state import TrainState, split_model
from .step import Metrics, cross_entropy

_SECONDS_BETWEEN_REPORTS = 2.0
_MEASURED_STEPS = 20

Start = tuple[nnx.Module, int, RunFolder | None]


class Trainer:
    """Trains networks of one architecture by one recipe on one data set; compiles once for all seeds.

    Several seeds train one after the other, each by `run`, or at once in one program, by `run_at_once`.

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
        if recipe.epochs * self._steps < recipe.accumulate:
            raise RecipeError(
                f"Expected accumulate up to the {recipe.epochs * self._steps} batches of all epochs, "
                f"got {recipe.accumulate}, with which nothing would be updated; do lower it."
            )
        self._tx = make_optimizer(recipe, self._steps)
        self._rate = learning_rate_schedule(recipe, self._steps)
        step = make_recipe_step(self._tx, recipe, train, self._steps, jit=False)
        self._epoch = Epoch(step, recipe.batch_size, keep_last=keep)

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
        (ending,) = self.run_at_once([(model, seed, folder)], callbacks=callbacks, resume=resume)
        if isinstance(ending, TrainingDiverged):
            raise ending
        return ending

    def run_at_once(
        self,
        todo: Sequence[Start],
        *,
        lanes: Sequence[int] = (),
        callbacks: Iterable[Callback] = (),
        resume: bool = False,
    ) -> list[Outcome | TrainingDiverged]:
        """Train several networks in one program, each as `run` does; the numbers differ by rounding alone.

        Every seed has its own rate, best epoch and end. One that has stopped or diverged keeps its lane, where nobody
        looks any more, and the others go on. Listeners hear of all together (`Callback`).

        Args:
            todo: network, seed and folder of each run, as for `run`; networks built alike.
            lanes: the seeds of all lanes, in order, where a resumed run had more than are still to be trained (those
                lanes do nothing of interest, but keep the program as it was); empty for the seeds of `todo`.
            callbacks: listeners.
            resume: go on from the folders' last checkpoints, which must stand at the same step.

        Returns:
            For each of `todo` how it ended: an `Outcome`, or how it diverged.

        Raises:
            ValueError: as for `run`, or checkpoints that stand at different steps.
            RunFolderError: another process trains in one of the folders.
        """
        with ExitStack() as held:
            for _, _, folder in todo:
                if folder is not None:
                    held.enter_context(folder.lock)
            return self._run(self._open(todo, lanes, resume), Callbacks(callbacks))

    def seconds_per_step(self, model: nnx.Module, seeds: Sequence[int]) -> float | None:
        """Compile the steps of so many seeds at once and measure one step; None where memory does not suffice."""
        try:
            states = stack([self._begin(model, seed) for seed in seeds])
            return self._epoch.seconds_per_step(states, self._train, self._order(seeds, 1), _MEASURED_STEPS)
        except jax.errors.JaxRuntimeError as error:
            if not no_memory(error):
                raise
            return None

    def _begin(self, model: nnx.Module, seed: int) -> TrainState:
        average = self.recipe.average != "none"
        return TrainState.create(model, self._tx, seed=seed, freeze=self.recipe.freeze, average=average)

    def _run(self, lanes: Lanes, listener: Callback) -> list[Outcome | TrainingDiverged]:
        listener.on_start(self._describe(lanes))
        interrupted, times = False, SaveTimes()
        with ExitStack() as closing:
            for run in lanes.runs:
                closing.callback(run.keeper.close)
            stop = closing.enter_context(StopRequest())
            self._compile(lanes, listener)
            while (live := lanes.live) and not interrupted:
                if self._run_epoch(lanes, listener, stop):
                    self._close_epoch(lanes, listener)
                interrupted = stop.requested and bool(lanes.live)
                everything = interrupted or times.due
                if to_save := [run for run in live if run.error is None and (everything or not run.live)]:
                    with times.saving():
                        for run in to_save:
                            run.save(lanes.own(run), wait=interrupted or not run.live)
        listener.on_stop(lanes.stop_text())
        return lanes.endings(interrupted=interrupted)

    def _open(self, todo: Sequence[Start], seeds: Sequence[int], resume: bool) -> Lanes:
        """Return the runs where they start or go on."""
        runs, states = [], []
        for model, seed, folder in todo:
            expect_groups(model, self.recipe)
            state = self._begin(model, seed)
            self._expect_fitting(state)
            position = Position.start(self.recipe)
            keeper = Keeper(folder, split_model(model, self.recipe.freeze)[1:])
            if resume:
                state, position = keeper.restore(state)
                seed = int(state.seed)
            else:
                keeper.start()
            runs.append(SeedRun(self.recipe, self.monitor_name, seed, position, keeper))
            states.append(state)
        return Lanes(runs, states, seeds)

    def _expect_fitting(self, state: TrainState) -> None:
        """Raise ValueError for images the network cannot take, and for labels that are none of its classes."""
        shapes = {"training": self._train.images.shape[1:], self.monitor_name: self._monitor.images.shape[1:]}
        classes = {shape: count_classes(state.model, shape) for shape in set(shapes.values())}
        for name, shape in shapes.items():
            expect_labels(name, self._labels[name], classes[shape])

    def _describe(self, lanes: Lanes) -> dict[str, Any]:
        first = lanes.runs[0]
        state = lanes.own(first)
        info = {
            "recipe": self.recipe,
            "seed": first.seed,
            "parameters": sum(int(p.size) for p in jax.tree.leaves(nnx.state(state.model, nnx.Param))),
            "trained": sum(int(p.size) for p in jax.tree.leaves(state.params)),
            "train_images": len(self._train),
            "monitor_images": len(self._monitor),
            "monitor": self.monitor_name,
            "steps_per_epoch": self._steps,
            "epochs": self.recipe.epochs,
            "epoch": first.position.epoch,
        }
        return info if lanes.alone else {**info, "seeds": [run.seed for run in lanes.runs]}

    def _compile(self, lanes: Lanes, listener: Callback) -> None:
        if not lanes.live:
            return
        first = lanes.live[0]
        listener.on_compile(None)
        start = time.perf_counter()
        order = self._order(lanes.seeds, first.position.epoch + 1)
        self._epoch.compile(lanes.state, self._train, order, first.position.step)
        self._evaluate(lanes.own(first))
        seconds = time.perf_counter() - start
        for run in lanes.live:
            run.position.compile_seconds += seconds
        listener.on_compile(seconds)

    def _order(self, seeds: Sequence[int], epoch: int) -> jax.Array | None:
        """The order of the images in an epoch, `[images]`, or `[lanes, images]` for several seeds."""
        return stack([epoch_order(self.recipe.order, seed, epoch, len(self._train)) for seed in seeds])

    def _run_epoch(self, lanes: Lanes, listener: Callback, stop: StopRequest) -> bool:
        """Run steps until the epoch ends or a stop is asked for; tell whether the epoch has ended."""
        if self.recipe.schedule == "plateau":
            scale = lanes.each(lambda run: jnp.float32(run.position.plateau.learning_rate), jnp.float32(0))
            lanes.state = dataclasses.replace(lanes.state, learning_rate_scale=scale)
        live = lanes.live
        position = live[0].position  # the others stand where this one stands
        order = self._order(lanes.seeds, position.epoch + 1)
        totals = lanes.each(lambda run: run.position.totals(), Metrics.zero())
        while position.step < self._steps and not stop.requested:
            start = time.perf_counter()
            count = max(round(lanes.steps_per_second * _SECONDS_BETWEEN_REPORTS), 1)  # at first a call alone
            upto = self._epoch.stop_after(position.step, count)
            lanes.state, totals = self._epoch.run(lanes.state, totals, self._train, order, position.step, upto)
            sums = [np.atleast_1d(value) for value in jax.device_get(totals)]
            seconds = time.perf_counter() - start
            lanes.steps_per_second = (upto - position.step) / max(seconds, 1e-6)
            for run in live:
                loss_sum, correct, images = (value[lanes.lane(run)] for value in sums)
                run.position.step, run.position.sums = upto, (float(loss_sum), int(correct), int(images))
                run.position.epoch_seconds += seconds
            listener.on_steps(position.epoch + 1, position.step, self._steps)
        return position.step == self._steps

    def _evaluate(self, state: TrainState) -> tuple[float, float]:
        """Return loss and accuracy over the monitored images."""
        logits = infer(state.structure, *state.evaluated, self._monitor.images)  # pyright: ignore[reportArgumentType]
        metrics = jax.device_get(score(logits, self._monitor.labels, loss=cross_entropy))  # pyright: ignore[reportArgumentType]
        return float(metrics.loss_sum) / int(metrics.count), int(metrics.correct) / int(metrics.count)

    def _close_epoch(self, lanes: Lanes, listener: Callback) -> None:
        """Evaluate every seed, one by one, let its books decide about it, and tell the listeners."""
        begin, live, records = time.perf_counter(), lanes.live, {}
        train_seconds = live[0].position.epoch_seconds
        for run in live:
            start, state = time.perf_counter(), lanes.own(run)
            record = run.close_epoch(state, self._evaluate(state), self._rate_of(state, run.position), start)
            if run.error is None:
                records[run.seed] = record
        if records:
            listener.on_epoch(lanes.record(records, train_seconds + time.perf_counter() - begin))

    def _rate_of(self, state: TrainState, position: Position) -> float:
        """The learning rate of the last step of an epoch that has just ended."""
        if self.recipe.schedule == "plateau":
            return position.plateau.learning_rate
        return float(jnp.asarray(self._rate((int(state.step) - 1) // self.recipe.accumulate)))
