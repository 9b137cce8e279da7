"""Many steps in one dispatch: the data stay on the device, the host hears sums."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnlab.data import Split

from .many_seeds import fits
from .state import TrainState
from .step import Metrics, TrainStep

Order = jax.Array | None
_Key = tuple[tuple[int, ...], int, bool]  # of a program: shape of the seeds, size of a batch, whether it runs one step
_TRIALS = 3
_FEWEST_STEPS = 32  # of a call, which then takes the device longer than the host
_FORM_OF_FAST_KERNELS = (
    "[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]",
    "reverse = [false, false]",
    "batch_group_count = 1 ",
    "feature_group_count = 1 ",
)


class Epoch:
    """Runs the steps of an epoch over images that lie on the device.

    A call runs many steps, by a loop inside the program. On CPU that also spares the pages of its working memory, which
    XLA asks for anew in every call, and a call runs any number of steps; only where XLA's compiler for CPU would make
    the convolutions of a loop slow (`fast_in_loops`), it runs one. Elsewhere it runs a fixed number of them, or one of
    those that are left over: XLA's program for a GPU waits for the device before each turn of a loop whose number of
    turns it does not know, to hear whether to go on (openxla/xla, `gpu/runtime/while_thunk.cc`).
    The last, shorter batch is a program of its own shape, so that no padding enters batch statistics.

    Several seeds train at once when `state`, `totals` and `order` are stacked, with the seed as first axis of each of
    their arrays (`many_seeds.stack`); the images are shared. The program is then `jax.vmap` of the same steps.

    Args:
        step: a training step made with `jit=False`.
        batch_size: images per step.
        keep_last: train on the short last batch.
    """

    def __init__(self, step: TrainStep, batch_size: int, *, keep_last: bool = True) -> None:
        self._step = step
        self.batch_size = batch_size
        self.keep_last = keep_last
        self._compiled: dict[_Key, _Program] = {}
        self._steps = 0

    @property
    def programs(self) -> list[Callable[..., tuple[TrainState, Metrics]]]:
        """What has been compiled, for each number of seeds, size of a batch and number of steps."""
        return [program.call for program in self._compiled.values()]

    def compile(self, state: TrainState, data: Split, order: Order, start: int = 0) -> float:
        """Compile the programs for this data; return the seconds it took (0 when done before).

        Args:
            state: to train from.
            data: to train on.
            order: of the images.
            start: step of the epoch at which the first run will begin.
        """
        begin, compiled = time.perf_counter(), len(self._compiled)
        full, rest = divmod(len(data), self.batch_size)
        self._steps = steps_per_epoch(len(data), self.batch_size, keep_last=self.keep_last)
        if full:
            steps = self._program(state, data, order, self.batch_size).steps
            if steps and (full % steps or start % steps):
                self._program(state, data, order, self.batch_size, single=True)
        if rest and self.keep_last:
            self._program(state, data, order, rest, single=True)
        return time.perf_counter() - begin if len(self._compiled) > compiled else 0.0

    def _program(self, state: TrainState, data: Split, order: Order, size: int, *, single: bool = False) -> _Program:
        """The program for batches of this size, of one step or of as many as a call should run; compiled once."""
        key = state.step.shape, size, single
        if key not in self._compiled:
            steps = 1 if single else _steps_a_call(len(data) // size)
            self._compiled[key] = self._compile_one(state, data, order, size, steps)
        return self._compiled[key]

    def _compile_one(self, state: TrainState, data: Split, order: Order, size: int, steps: int | None) -> _Program:
        seeds = state.step.shape
        arguments = (state, _no_totals(seeds), data.images, data.labels, order, jnp.int32(0))
        donated = partial(jax.jit, donate_argnums=(0, 1), keep_unused=True)
        one = partial(_run_one, self._step, size, self._steps)
        if seeds:
            one = jax.vmap(one, in_axes=(0, 0, None, None, 0, None))
        if steps is None:
            looped = donated(partial(_run_steps, one, size)).lower(*arguments, jnp.int32(1))
            if fast_in_loops(looped.as_text()):
                return _Program(looped.compile(), None)
        elif steps > 1:
            return _Program(donated(partial(_run_steps, one, size, count=steps)).lower(*arguments).compile(), steps)
        return _Program(donated(one).lower(*arguments).compile(), 1)

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
        full, rest = divmod(len(data), self.batch_size)
        middle, calls = min(stop, full), []
        if start < middle:
            program = self._program(state, data, order, self.batch_size)
            steps = program.steps or middle - start
            whole = range(start, middle - steps + 1, steps)
            calls = [(program, first, steps) for first in whole]
            if left := range(start + len(whole) * steps, middle):
                program = self._program(state, data, order, self.batch_size, single=True)
                calls += [(program, first, 1) for first in left]
        if start <= full < stop:
            calls.append((self._program(state, data, order, rest, single=True), full, 1))
        for program, first, steps in calls:
            count = () if program.steps else (np.int32(steps),)
            offset = np.int32(first * self.batch_size)
            state, totals = program.call(state, totals, data.images, data.labels, order, offset, *count)
        return state, totals

    def stop_after(self, start: int, count: int) -> int:
        """Return where to stop after some `count` steps from `start` on: after whole calls, or at the end of the epoch.

        Args:
            start: first step, counted in the epoch.
            count: how many are wanted; where fewer than a quarter of that would be left over, these are not left.
        """
        unit = max((program.steps or 1 for program in self._compiled.values()), default=1)
        stop = -(-(start + count) // unit) * unit
        return self._steps if self._steps - stop < count // 4 else stop

    def seconds_per_step(self, state: TrainState, data: Split, order: Order, steps: int) -> float | None:
        """Compile, and measure up to so many steps in a row; donates `state`. None where memory would not suffice."""
        self.compile(state, data, order)
        seeds, steps = state.step.shape, self.stop_after(0, steps)
        if not all(fits(program.call) for (shape, *_), program in self._compiled.items() if shape == seeds):
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


class _Program(NamedTuple):
    """Steps on batches of one size, compiled.

    Attributes:
        call: takes state, totals, images, labels, order, and the image from which on it trains; where `steps` is None,
            how many steps besides.
        steps: that a call runs; None for any number.
    """

    call: Callable[..., tuple[TrainState, Metrics]]
    steps: int | None


def _steps_a_call(full: int) -> int | None:
    """How many of an epoch's steps on whole batches a call should run on this platform (`Epoch`).

    Off the CPU that is at best a divisor, so that no step is left over, and never so many that nobody hears of them for
    long.
    """
    if jax.default_backend() == "cpu":
        return None
    if full < _FEWEST_STEPS:
        return full
    divisors = (count for count in range(_FEWEST_STEPS, 4 * _FEWEST_STEPS) if full % count == 0)
    return next(divisors, None) or min(range(_FEWEST_STEPS, 2 * _FEWEST_STEPS), key=lambda count: full % count)


def _run_steps(
    one: Callable[..., tuple[TrainState, Metrics]],
    size: int,
    state: TrainState,
    totals: Metrics,
    images: jax.Array,
    labels: jax.Array,
    order: Order,
    offset: jax.Array,
    count: jax.Array | int,
) -> tuple[TrainState, Metrics]:
    """Run `count` steps from image `offset` on, inside one program."""

    def body(i: jax.Array, carry: tuple[TrainState, Metrics]) -> tuple[TrainState, Metrics]:
        return one(*carry, images, labels, order, offset + i * size)

    return jax.lax.fori_loop(0, count, body, (state, totals))


def _run_one(
    step: TrainStep,
    size: int,
    steps: int,
    state: TrainState,
    totals: Metrics,
    images: jax.Array,
    labels: jax.Array,
    order: Order,
    offset: jax.Array,
) -> tuple[TrainState, Metrics]:
    """Run the one step of `size` images from image `offset` on; `steps` make an epoch."""
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
