"""Many steps in one dispatch: the data stay on the device, the host hears sums."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnlab.data import Split

from .state import TrainState
from .step import Metrics, TrainStep

Order = jax.Array | None


class Epoch:
    """Runs the steps of an epoch over images that lie on the device.

    Where a loop inside the program pays (everywhere but for plain convolutions on CPU, whose gradients
    XLA compiles to naive code inside loops) one dispatch runs any number of steps; otherwise one each.
    The last, shorter batch is a program of its own shape, so that no padding enters batch statistics.

    Args:
        step: a training step made with `jit=False`.
        batch_size: images per step.
        keep_last: train on the short last batch.
    """

    def __init__(self, step: TrainStep, batch_size: int, *, keep_last: bool = True):
        self._step = step
        self.batch_size = batch_size
        self.keep_last = keep_last
        self._compiled: dict[int, Callable[..., tuple[TrainState, Metrics]]] = {}
        self._looped = True

    def compile(self, state: TrainState, data: Split, order: Order) -> float:
        """Compile the programs for this data; return the seconds it took (0 when done before)."""
        start = time.perf_counter()
        full, rest = divmod(len(data), self.batch_size)
        sizes = [self.batch_size] * (full > 0) + [rest] * (rest > 0 and self.keep_last)
        todo = [size for size in sizes if size not in self._compiled]
        for size in todo:
            self._compiled[size] = self._compile_one(state, data, order, size)
        return time.perf_counter() - start if todo else 0.0

    def _compile_one(self, state: TrainState, data: Split, order: Order, size: int):
        arguments = (state, Metrics.zero(), data.images, data.labels, order, jnp.int32(0), jnp.int32(1))
        donate: dict[str, Any] = {"donate_argnums": (0, 1), "keep_unused": True}
        looped = jax.jit(partial(_run_steps, self._step, size), **donate).lower(*arguments)
        if jax.default_backend() == "cpu" and "stablehlo.convolution" in looped.as_text():
            self._looped = False
            return jax.jit(partial(_run_one, self._step, size), **donate).lower(*arguments).compile()
        return looped.compile()

    def run(
        self, state: TrainState, totals: Metrics, data: Split, order: Order, start: int, stop: int
    ) -> tuple[TrainState, Metrics]:
        """Run the steps `start` to `stop` of an epoch; donates `state` and `totals`.

        Args:
            state: the state before step `start`.
            totals: sums over the epoch so far.
            data: images uint8 `[n, h, w, c]` and labels int32 `[n]` on the device.
            order: permutation int32 `[n]` of the images, or None for the order of the data.
            start: first step, counted in the epoch.
            stop: one past the last.
        """
        full = len(data) // self.batch_size
        middle = min(stop, full)
        if start < middle:
            run = self._compiled[self.batch_size]
            for first, count in [(start, middle - start)] if self._looped else [(i, 1) for i in range(start, middle)]:
                offset, count = np.int32(first * self.batch_size), np.int32(count)
                state, totals = run(state, totals, data.images, data.labels, order, offset, count)
        if start <= full < stop:
            run, offset = self._compiled[len(data) % self.batch_size], np.int32(full * self.batch_size)
            state, totals = run(state, totals, data.images, data.labels, order, offset, np.int32(1))
        return state, totals


def _run_steps(
    step: TrainStep,
    size: int,
    state: TrainState,
    totals: Metrics,
    images: jax.Array,
    labels: jax.Array,
    order: Order,
    offset: jax.Array,
    count: jax.Array,
) -> tuple[TrainState, Metrics]:
    """Run `count` steps from image `offset` on, inside one program."""

    def body(i: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        return _run_one(step, size, *carry, images, labels, order, offset + i * size, count)

    return jax.lax.fori_loop(0, count, body, (state, totals))


def _run_one(step, size, state, totals, images, labels, order, offset, count):  # noqa: ANN001 (as above)
    del count
    if order is None:
        batch = {
            name: jax.lax.dynamic_slice_in_dim(x, offset, size) for name, x in (("image", images), ("label", labels))
        }
    else:
        chosen = jax.lax.dynamic_slice_in_dim(order, offset, size)
        batch = {"image": images[chosen], "label": labels[chosen]}
    state, metrics = step(state, batch)
    return state, totals + metrics


def steps_per_epoch(images: int, batch_size: int, *, keep_last: bool) -> int:
    """Return the number of steps of an epoch over so many images."""
    full, rest = divmod(images, batch_size)
    return full + int(keep_last and rest > 0)


def epoch_order(kind: str, seed: int, epoch: int, images: int) -> Order:
    """Return the order of the images in an epoch, int32 `[images]`, or None for that of the data set.

    Args:
        kind: "dataset", "permuted" (one permutation for all epochs) or "shuffled" (one each).
        seed: of the run.
        epoch: 1 for the first.
        images: how many.
    """
    if kind == "dataset":
        return None
    rng = np.random.default_rng([seed, 0 if kind == "permuted" else epoch])
    return jnp.asarray(rng.permutation(images), jnp.int32)


def put_on_device(data: Split) -> Split:
    """Return the split with its arrays on the default device."""
    return Split(jnp.asarray(data.images), jnp.asarray(data.labels, jnp.int32))  # pyright: ignore[reportArgumentType]
