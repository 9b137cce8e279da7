"""The seeds that one program trains at once: their books, and their states as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .many_seeds import lane_of, stack
from .seed_run import Outcome, SeedRun, TrainingDiverged
from .state import TrainState

_MEANS = ("train_loss", "train_accuracy", "loss", "accuracy", "learning_rate", "best_accuracy")


class Lanes:
    """One lane per seed; a single one is the plain case, with a state that is not stacked.

    A seed that has stopped keeps its lane, so that the program stays the same: what it goes on computing nobody looks
    at. Likewise a lane without a run, of a seed that had ended before the others were resumed.

    Args:
        runs: the books; those that are to train stand at the same step.
        states: the state of each.
        seeds: the seed of each lane, where there are more lanes than runs; empty for those of the runs.

    Attributes:
        state: all states as one (`many_seeds.stack`).
        steps_per_second: of the last dispatch; 0 before the first.

    Raises:
        ValueError: a seed that is there twice, or runs that stand at different steps.
    """

    def __init__(self, runs: Sequence[SeedRun], states: Sequence[TrainState], seeds: Sequence[int] = ()):
        self.runs = list(runs)
        self.seeds = list(seeds) or [run.seed for run in runs]
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"Expected every seed once to train at once, got {self.seeds}; do name each once.")
        if len({(run.position.epoch, run.position.step) for run in self.live}) > 1:
            raise ValueError("Expected runs that stand at the same step to train at once, got others; do resume each.")
        own = {run.seed: state for run, state in zip(runs, states, strict=True)}
        self.steps_per_second = 0.0
        self.state = stack([own.get(seed, states[0]) for seed in self.seeds])
        for run in runs:
            run.last = None if run.live else own[run.seed]
            if run.live:
                run.position.together = [] if self.alone else self.seeds
                run.position.seeds_at_once = len(self.live)

    @property
    def alone(self) -> bool:
        """Whether there is one lane only."""
        return len(self.seeds) == 1

    @property
    def live(self) -> list[SeedRun]:
        """The runs that go on training."""
        return [run for run in self.runs if run.live]

    def lane(self, run: SeedRun) -> int:
        """Return the place of a run among the lanes."""
        return self.seeds.index(run.seed)

    def own(self, run: SeedRun) -> TrainState:
        """Return the state in the lane of a run."""
        return lane_of(self.state, self.lane(run))

    def each(self, value: Callable[[SeedRun], Any], otherwise: Any) -> Any:
        """Return the values of all live runs, pytrees, as one; `otherwise` in the lanes where nobody looks."""
        live = {run.seed: run for run in self.live}
        return stack([value(live[seed]) if seed in live else otherwise for seed in self.seeds])

    def record(self, records: dict[int, dict[str, Any]], seconds: float) -> dict[str, Any]:
        """Return what listeners hear of an epoch: means over the seeds, and their speeds added up.

        Args:
            records: seed -> record of the epoch, of the seeds that finished it well; at least one.
            seconds: that the epoch took all of them.
        """
        each = list(records.values())
        if self.alone:
            return each[0]
        return {
            "epoch": each[0]["epoch"],
            "monitor": each[0]["monitor"],
            **{key: sum(record[key] for record in each) / len(each) for key in _MEANS},
            "best_epoch": None,
            "seconds": seconds,
            "images_per_second": sum(record["images_per_second"] for record in each),
            "event": None,
            "training": len(self.live),
            "seeds": records,
        }

    def stop_text(self) -> str:
        """Return why it all ended, such as `seeds 0, 2 completed all 9 epochs; seed 1 diverged in epoch 3`."""
        if self.alone:
            return self.runs[0].stop_text()
        if self.live:
            return self.live[0].stop_text()  # an interruption
        seeds: dict[str, list[str]] = {}
        for run in self.runs:
            seeds.setdefault(run.stop_text(), []).append(str(run.seed))
        each = [f"{'seeds' if len(who) > 1 else 'seed'} {', '.join(who)} {text}" for text, who in seeds.items()]
        return "; ".join(each)

    def endings(self, *, interrupted: bool) -> list[Outcome | TrainingDiverged]:
        """Return for each run what it gives back, or how it diverged."""
        return [run.error or run.outcome(self.own(run), interrupted=interrupted) for run in self.runs]
