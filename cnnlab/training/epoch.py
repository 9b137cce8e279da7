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

from .many_seeds import fits
from .state import TrainState
from .step import Metrics, TrainStep

Order = jax.Array | None
_TRIALS = 3
_FORM_OF_FAST_KERNELS = (
    "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]",
    "reverse = [false, false]",
    "batch_group_count = 1 ",
    "feature_group_count = 1 ",
)


class Epoch:
    """Runs the steps of an epoch over images that lie on the device.

    One dispatch runs any number of steps, by a loop inside the program; on CPU that also spares the pages of its
    working memory, which XLA asks for anew in every call. Only where XLA's compiler for CPU would make the convolutions
    of a loop slow (`fast_in_loops`), a dispatch runs one step.
    The last, shorter batch is a program of its own shape, so that no padding enters batch statistics.

    Several seeds train at once when `state`, `totals` and `order` are stacked, with the seed as first axis of each of
    their arrays (`many_seeds.stack`); the images are shared. The program is then `jax.vmap` of the same steps.

    Args:
        step: a training step made with `jit=False`.
        batch_size: images per step.
        keep_last: train on the short last batch.
    """

    def __init__(self, step: TrainStep, batch_size: int, *, keep_last: bool = True):
        self._step = step
        self.batch_size = batch_size
        self.keep_last = keep_last
        self._compiled: dict[tuple[tuple[int, ...], int], Callable[..., tuple[TrainState, Metrics]]] = {}
        self._steps = 0
        self._looped = True

    @property
    def programs(self) -> list[Callable[..., tuple[TrainState, Metrics]]]:
        """What has been compiled: a program for each number of seeds and size of a batch."""
        return list(self._compiled.values())

    def compile(self, state: TrainState, data: Split, order: Order) -> float:
        """Compile the programs for this data; return the seconds it took (0 when done before)."""
        start = time.perf_counter()
        full, rest = divmod(len(data), self.batch_size)
        self._steps = steps_per_epoch(len(data), self.batch_size, keep_last=self.keep_last)
        sizes = [self.batch_size] * (full > 0) + [rest] * (rest > 0 and self.keep_last)
        seeds = state.step.shape
        todo = [size for size in sizes if (seeds, size) not in self._compiled]
        for size in todo:
            self._compiled[seeds, size] = self._compile_one(state, data, order, size)
        return time.perf_counter() - start if todo else 0.0

    def _compile_one(self, state: TrainState, data: Split, order: Order, size: int):
        seeds = state.step.shape
        arguments = (state, _no_totals(seeds), data.images, data.labels, order, jnp.int32(0), jnp.int32(1))
        donate: dict[str, Any] = {"donate_argnums": (0, 1), "keep_unused": True}
        one = partial(_run_one, self._step, size, self._steps)
        if seeds:
            one = jax.vmap(one, in_axes=(0, 0, None, None, 0, None, None))
        looped = jax.jit(partial(_run_steps, one, size), **donate).lower(*arguments)
        if jax.default_backend() == "cpu" and not fast_in_loops(looped.as_text()):
            self._looped = False
            return jax.jit(one, **donate).lower(*arguments).compile()
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
        seeds, full = state.step.shape, len(data) // self.batch_size
        middle = min(stop, full)
        if start < middle:
            run = self._compiled[seeds, self.batch_size]
            for first, count in [(start, middle - start)] if self._looped else [(i, 1) for i in range(start, middle)]:
                offset, count = np.int32(first * self.batch_size), np.int32(count)
                state, totals = run(state, totals, data.images, data.labels, order, offset, count)
        if start <= full < stop:
            run, offset = self._compiled[seeds, len(data) % self.batch_size], np.int32(full * self.batch_size)
            state, totals = run(state, totals, data.images, data.labels, order, offset, np.int32(1))
        return state, totals

    def seconds_per_step(self, state: TrainState, data: Split, order: Order, steps: int) -> float | None:
        """Compile, and measure up to so many steps in a row; donates `state`. None where memory would not suffice."""
        self.compile(state, data, order)
        seeds, steps = state.step.shape, min(steps, self._steps)
        if not all(fits(program) for (shape, _), program in self._compiled.items() if shape == seeds):
            return None
        seconds = []
        for _ in range(1 + _TRIALS):
            totals = _no_totals(seeds)
            jax.block_until_ready((state, totals))
            start = time.perf_counter()
            state, totals = self.run(state, totals, data, order, 0, steps)
            jax.block_until_ready(totals)
            seconds.append((time.perf_counter() - start) / steps)
        return min(seconds[1:])


def fast_in_loops(program: str) -> bool:
    """Whether XLA's compiler for CPU makes the convolutions of a lowered program as fast in a loop as outside of one.

    It brings convolutions into the form that its fast kernels take only where they stand in the outermost program. In
    loops those are fast that have this form already, as all that `cnnlab.layers` makes of dense ones without a
    precision of their own. JAX's gradients do not have it, and grouped convolutions cannot.
    """
    convolutions = [line for line in program.splitlines() if "stablehlo.convolution" in line]
    return all(all(part in line for part in _FORM_OF_FAST_KERNELS) for line in convolutions)


def _run_steps(
    one: Callable[..., tuple[TrainState, Metrics]],
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
        return one(*carry, images, labels, order, offset + i * size, count)

    return jax.lax.fori_loop(0, count, body, (state, totals))


def _run_one(step, size, steps, state, totals, images, labels, order, offset, count):  # noqa: ANN001 (as above)
    """Run the one step of `size` images from image `offset` on; `steps` make an epoch."""
    del count
    if order is None:
        index = offset + jnp.arange(size, dtype=jnp.int32)
        image, label = (jax.lax.dynamic_slice_in_dim(x, offset, size) for x in (images, labels))
    else:
        index = jax.lax.dynamic_slice_in_dim(order, offset, size)
        image, label = images[index], labels[index]
    batch = {"image": image, "label": label, "index": index, "epoch": state.step // steps}
    state, metrics = step(state, batch)
    return state, totals + metrics


def _no_totals(seeds: tuple[int, ...]) -> Metrics:
    """Sums over no image, for each seed."""
    return jax.tree.map(lambda zero: jnp.array(jnp.broadcast_to(zero, seeds)), Metrics.zero())


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
