"""Which learning rate reaches an accuracy first: rates are tried one by one, up or down from the best so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

RATES = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_CHANCE = 0.1  # accuracy before training, with ten classes
_SLACK = 1.25


def epochs_to(accuracy: float, curve: Sequence[float | None]) -> float | None:
    """Return after how many epochs the training accuracy got to `accuracy`; None if it did not.

    The accuracy of epoch e is counted while the network trains, so that it belongs to the middle of the epoch, e - 1/2.
    Between two such points, and from chance at 0 to the first, it is taken to rise in a straight line.

    Args:
        accuracy: above chance.
        curve: the accuracy of each epoch; the first to reach the value counts.
    """
    time, before = 0.0, _CHANCE
    for epoch, value in enumerate(curve, 1):
        middle = epoch - 0.5
        if value is not None and value >= accuracy:
            return time + (middle - time) * (accuracy - before) / (value - before)
        time, before = middle, _CHANCE if value is None else value
    return None


@dataclass(frozen=True)
class Sweep:
    """How far a sweep has got.

    Attributes:
        caps: for each rate asked for so far, in their order, the epochs that its run may take.
        best: the fastest of those that have run; None before there is one.
        reached: whether that one reached the accuracy.
        over: whether no rate is left to try.
    """

    caps: Mapping[float, int]
    best: float | None
    reached: bool
    over: bool

    @property
    def at_an_end(self) -> bool:
        """Whether the fastest is the first or last of `RATES`, so that one beyond may be faster."""
        return self.best in (RATES[0], RATES[-1])


def sweep(
    run_at: Callable[[float], Mapping[str, Any] | None], accuracy: float, *, start: float, most_epochs: int
) -> Sweep:
    """Say which rates have been tried, which comes next, and for how long.

    After `start` the next rate above the best so far is tried, if that has been then the next below, until both
    neighbours of the best are slower. Once a run has reached the accuracy in epoch e, later ones get 1.25 e epochs:
    those that are not there by then are slower, and further seeds of one that is have some time to spare. Of runs that
    do not reach it the one with the highest training accuracy at its end is the best; one that diverged is the worst.

    All follows from the runs of the rates asked for before, in their order. So neither that order nor a cap changes
    when more is known.

    Args:
        run_at: the run at a rate; None while there is none.
        accuracy: of training, to be reached.
        start: one of `RATES`.
        most_epochs: of runs before one has reached the accuracy, and at most.
    """
    caps: dict[float, int] = {}
    found: dict[int, tuple[float, float]] = {}
    cap, place = most_epochs, RATES.index(start)
    while place is not None:
        caps[RATES[place]] = cap
        run = run_at(RATES[place])
        if run is None:
            break
        found[place] = _slowness(run, accuracy)
        best = min(found, key=found.__getitem__)
        if place == best and math.isfinite(found[place][0]):
            cap = min(most_epochs, math.ceil(_SLACK * run["epochs"]))
        place = next((i for i in (best + 1, best - 1) if 0 <= i < len(RATES) and i not in found), None)
    fastest = min(found, key=found.__getitem__) if found else None
    reached = fastest is not None and math.isfinite(found[fastest][0])
    return Sweep(caps, None if fastest is None else RATES[fastest], reached, place is None)


def _slowness(run: Mapping[str, Any], accuracy: float) -> tuple[float, float]:
    """By what runs are compared: first the epochs to the accuracy, then the error at the end."""
    if run["diverged"]:
        return math.inf, math.inf
    epochs = epochs_to(accuracy, run["history"]["train_accuracy"])
    return math.inf if epochs is None else epochs, 1 - run["last_train_accuracy"]
