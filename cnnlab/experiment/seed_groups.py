"""Which of several seeds train at once, and which one after the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from cnnlab.training import RunFolder, Trainer
from cnnlab.training.many_seeds import choose_width

Todo = list[tuple[int, RunFolder | None]]


@dataclass(frozen=True)
class SeedGroup:
    """Seeds that train at once, or one alone.

    Attributes:
        todo: seed and folder of each.
        lanes: the seeds of all lanes of their program, those included that have ended before; one for a seed alone.
        resume: whether they go on from checkpoints.
    """

    todo: Todo
    lanes: tuple[int, ...]
    resume: bool


def group_seeds(
    todo: Todo, *, resume: bool, at_once: bool | None, width: Callable[[Sequence[int]], int]
) -> list[SeedGroup]:
    """Return the groups to train, one group after the other.

    Seeds that were trained at once go on in the lanes that they had, and so to the same bits; those of them that do not
    stand at the same step (the process was killed between two saves) make a group per step.

    Args:
        todo: seed and folder of each.
        resume: go on from the checkpoints that there are.
        at_once: False: each alone. True: all at once that stand at the same step. None: what has begun goes on as it
            was, and `width` decides about the rest.
        width: tells how many of some new seeds to train at once; asked only when it matters.
    """
    groups: dict[Any, SeedGroup] = {}
    new: Todo = []
    for seed, folder in todo:
        if not resume or folder is None or not folder.last.exists():
            new.append((seed, folder))
            continue
        _, position = folder.last.meta()
        lanes, step = tuple(position.get("together", ())), (position["epoch"], position["step"])
        if position["stop_reason"] is not None or at_once is False or not (lanes or at_once):
            groups[seed] = SeedGroup([(seed, folder)], (seed,), resume=True)
        else:
            group = groups.setdefault((lanes, step), SeedGroup([], lanes, resume=True))
            group.todo.append((seed, folder))
    begun = [group if group.lanes else _group(group.todo, resume=True) for group in groups.values()]
    seeds = [seed for seed, _ in new]
    size = len(new) if at_once else 1
    if at_once is None and len(new) > 1:
        size = width(seeds)
    return begun + [_group(new[i : i + size], resume=False) for i in range(0, len(new), max(size, 1))]


def _group(todo: Todo, *, resume: bool) -> SeedGroup:
    return SeedGroup(todo, tuple(seed for seed, _ in todo), resume)


def measured_width(trainer: Trainer, network: nnx.Module, seeds: Sequence[int], *, progress: bool) -> int:
    """Return how many of the seeds to train at once: by measurement, but on CPU always one.

    On CPU at once gains nothing with LeNet and ResNet-20 that could be told from chance (benchmarks/seeds.py), so a
    measurement of some steps would choose by chance, and with it the rounding of every seed's numbers. And at once
    costs a compilation that grows with the number of seeds, and their memory. `at_once=True` decides otherwise.

    Args:
        trainer: trains them.
        network: of any of them.
        seeds: all of them.
        progress: say what was measured.
    """
    if jax.default_backend() == "cpu":
        return 1
    start, found = time.perf_counter(), {}

    def seconds(count: int) -> float | None:
        found[count] = trainer.seconds_per_step(network, seeds[:count])
        return found[count]

    width = choose_width(len(seeds), seconds)
    if progress:
        print(tell_width(width, found, time.perf_counter() - start), flush=True)
    return width


def tell_width(width: int, found: dict[int, float | None], seconds: float) -> str:
    """Return a line on what was measured: seconds per step of so many seeds at once, None for too little memory."""
    steps = [
        f"{count} at once {'do not fit into memory' if step is None else f'take {1e3 * step:.3g} ms a step'}"
        for count, step in found.items()
        if count > 1
    ]
    alone = "" if found[1] is None else f"one seed takes {1e3 * found[1]:.3g} ms a step, "
    chosen = f"{width} at once" if width > 1 else "one after the other"
    return f"{alone}{', '.join(steps)}: {chosen} (measured in {seconds:.1f} s)"
