"""One entrant of the race: the programs compiled once, then runs, each from new weights to the test accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from measure import BenchmarkError

from cnnlab.data import Dataset, Split
from cnnlab.evaluation.augmented import TestTimeAugmented
from cnnlab.experiment.networks import channel_statistics, standardized
from cnnlab.experiment.preparation import prepared
from cnnlab.models import create_model
from cnnlab.training import Recipe, TrainState, make_optimizer
from cnnlab.training.epoch import Epoch, epoch_order, put_on_device, steps_per_epoch
from cnnlab.training.inference import infer
from cnnlab.training.precision import set_precision
from cnnlab.training.recipe_step import make_recipe_step
from cnnlab.training.state import split_model
from cnnlab.training.step import Metrics

WARM_UP_SEED = 2**32 - 1
CPU_STEPS = 2  # of the warm-up, and between two looks at the clock
PROGRESS_SECONDS = 30.0
Say = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """What runs for a target.

    Attributes:
        target: mean test accuracy to reach, in percent.
        recipe: name of the recipe.
        options: of the network `cifarnet`.
    """

    target: int
    recipe: str
    options: dict[str, Any] = field(default_factory=dict)


ENTRIES = {
    entry.recipe: entry
    for entry in (
        Entry(94, "race94"),
        Entry(94, "race94-muon", {"logit_scale": 1 / 256, "unit_head": True}),
        Entry(95, "race95", {"widths": [128, 384, 384]}),
        Entry(96, "race96", {"widths": [128, 384, 512], "depth": 3, "norm_momentum": 0.9}),
    )
}


class Racer:
    """Holds the images on the device and the compiled programs; `run` is one run under the clock.

    It is put together from the parts that `cnnlab.training.Trainer` is made of, without evaluations after the epochs.

    Args:
        recipe: how to train.
        options: of the network `cifarnet`.
        data: the data set.
        say: hears progress.
    """

    def __init__(self, recipe: Recipe, options: dict[str, Any], data: Dataset, say: Say):
        self.recipe, self._say = recipe, say
        self._options = dict(options)
        self._on_cpu = jax.default_backend() == "cpu"
        keep = recipe.last_batch == "keep"
        self.steps = steps_per_epoch(len(data.train), recipe.batch_size, keep_last=keep)
        if self.steps == 0:
            raise BenchmarkError(f"Expected a batch of {recipe.batch_size} training images, got {len(data.train)}.")
        self._statistics = channel_statistics(data.train) if recipe.standardize else None
        self._train, self._test = put_on_device(data.train), put_on_device(data.test)
        self._tx = make_optimizer(recipe, self.steps)
        step = make_recipe_step(self._tx, recipe, data.train, self.steps, jit=False)
        self._epoch = Epoch(step, recipe.batch_size, keep_last=keep)

    def warm_up(self) -> float:
        """Compile, and run on random labels: a whole run, on CPU a few steps; return the seconds."""
        start = time.perf_counter()
        labels = np.random.default_rng(0).integers(0, 10, len(self._train)).astype(np.int32)
        random = Split(self._train.images, jnp.asarray(labels))  # pyright: ignore[reportArgumentType]
        state = self._start(self._network(WARM_UP_SEED), WARM_UP_SEED)
        self._epoch.compile(state, random, self._order(0, 1))
        epochs = 1 if self._on_cpu else self.recipe.epochs
        stop = CPU_STEPS if self._on_cpu else self.steps
        state, _ = self._steps(state, random, WARM_UP_SEED, epochs, stop)
        for augmented in (True, False):
            jax.block_until_ready(self._correct(state, augmented=augmented))
        return time.perf_counter() - start

    def run(self, seed: int) -> dict[str, Any]:
        """Train from new weights and count the test images that the last network gets right.

        The clock runs from the whitening of the first filters to the count of right answers with test-time
        augmentation. The random weights are made before it starts; the count without augmentation comes after it.

        Args:
            seed: of weights, order and augmentation.

        Returns:
            `seconds` and its parts `prepare_seconds`, `train_seconds`, `evaluate_seconds`; `accuracy` with test-time
            augmentation and `accuracy_plain` without it, in percent; `train_loss` of the last epoch.

        Raises:
            BenchmarkError: the loss is not finite.
        """
        network = jax.block_until_ready(self._network(seed))
        start = time.perf_counter()
        state = jax.block_until_ready(self._start(network, seed))
        prepared_at = time.perf_counter()
        state, totals = self._steps(state, self._train, seed, self.recipe.epochs, self.steps)
        jax.block_until_ready(state)
        trained_at = time.perf_counter()
        correct = int(self._correct(state, augmented=True))
        end = time.perf_counter()
        plain = int(self._correct(state, augmented=False))
        loss = float(totals.loss_sum) / int(totals.count)
        if not math.isfinite(loss):
            raise BenchmarkError(f"Expected a finite loss, got {loss} with seed {seed}; do lower learning_rate.")
        return {
            "seed": seed,
            "seconds": end - start,
            "prepare_seconds": prepared_at - start,
            "train_seconds": trained_at - prepared_at,
            "evaluate_seconds": end - trained_at,
            "accuracy": 100 * correct / len(self._test),
            "accuracy_plain": 100 * plain / len(self._test),
            "train_loss": loss,
        }

    def _network(self, seed: int) -> nnx.Module:
        network = standardized(create_model("cifarnet", rngs=nnx.Rngs(seed), **self._options), self._statistics)
        return set_precision(network, self.recipe.precision)

    def _start(self, network: nnx.Module, seed: int) -> TrainState:
        network = prepared(network, self._train.images)
        average = self.recipe.average != "none"
        return TrainState.create(network, self._tx, seed=seed, freeze=self.recipe.freeze, average=average)

    def _order(self, seed: int, epoch: int) -> jax.Array | None:
        return epoch_order(self.recipe.order, seed, epoch, len(self._train))

    def _steps(self, state: TrainState, data: Split, seed: int, epochs: int, stop: int) -> tuple[TrainState, Metrics]:
        """Run the first `stop` steps of each epoch; return the state and the sums of the last epoch."""
        start = said = time.perf_counter()
        totals, done = Metrics.zero(), 0
        stride = CPU_STEPS if self._on_cpu else stop  # a GPU gets whole epochs, and nobody waits for it in between
        for epoch in range(1, epochs + 1):
            order, totals = self._order(seed, epoch), Metrics.zero()
            for first in range(0, stop, stride):
                last = min(first + stride, stop)
                state, totals = self._epoch.run(state, totals, data, order, first, last)
                done += last - first
                if self._on_cpu:
                    jax.block_until_ready(totals)
                    now = time.perf_counter()
                    if now - said > PROGRESS_SECONDS or last == stop:
                        said = now
                        left = (now - start) / done * (epochs * stop - done)
                        loss, accuracy = float(totals.loss), 100 * float(totals.accuracy)
                        self._say(
                            f"  epoch {epoch} of {epochs}, step {last} of {stop}: loss {loss:.4f}, training accuracy "
                            f"{accuracy:.2f} %, {now - start:.0f} s, {left:.0f} s to go"
                        )
        return state, totals

    def _correct(self, state: TrainState, *, augmented: bool) -> jax.Array:
        """Count the test images that the network gets right, on the device."""
        network = TestTimeAugmented(state.model, "multi-crop") if augmented else state.model
        logits = infer(*split_model(network), self._test.images)  # pyright: ignore[reportArgumentType]
        return (logits.argmax(-1) == self._test.labels).sum(dtype=jnp.int32)
