"""What an experiment gives back."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from flax import nnx

from cnnlab.evaluation import Evaluation
from cnnlab.training import TrainState


@dataclass(frozen=True)
class Run:
    """A trained network and what happened.

    Attributes:
        best: the network of the best epoch, in evaluation mode; it knows its `classes` and `image_shape`.
        last: the state after the last step.
        history: one record per epoch, as in `metrics.jsonl`.
        evaluation: of `best` on the test images; None when the run was interrupted.
        seed: of initial weights, noise and order.
        stop_reason: one sentence; None when the run was interrupted.
        folder: the run folder, or None.
    """

    best: nnx.Module
    last: TrainState
    history: list[dict[str, Any]]
    evaluation: Evaluation | None
    seed: int
    stop_reason: str | None
    folder: Path | None

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked the run to stop before its end."""
        return self.stop_reason is None


@dataclass(frozen=True)
class Runs(Sequence[Run]):
    """The runs of several seeds, in order; `summary` has mean and standard deviation."""

    runs: tuple[Run, ...]
    folder: Path | None

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Run, ...]: ...

    def __getitem__(self, index: int | slice) -> Run | tuple[Run, ...]:
        return self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked one of the runs to stop before its end."""
        return any(run.interrupted for run in self.runs)

    @property
    def summary(self) -> dict[str, Any]:
        """Plain JSON values: every seed's row, and n, mean and standard deviation (n - 1) of the accuracy."""
        rows = [_summary_row(run) for run in self.runs if run.evaluation is not None]
        values = [row["accuracy"] for row in rows]
        return {
            "seeds": [run.seed for run in self.runs],
            "rows": rows,
            "accuracy": {
                "n": len(values),
                "mean": statistics.fmean(values) if values else None,
                "std": statistics.stdev(values) if len(values) > 1 else None,
            },
        }


def _summary_row(run: Run) -> dict[str, Any]:
    last = run.history[-1]
    return {
        "seed": run.seed,
        "accuracy": run.evaluation.accuracy if run.evaluation else None,
        "best_accuracy": last["best_accuracy"],
        "best_epoch": last["best_epoch"],
        "epochs": last["epoch"],
        "stop_reason": run.stop_reason,
    }
