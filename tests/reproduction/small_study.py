"""A small study of two rows, and results made by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from cnnlab.reproduction import Results, Row, RowResults, Study, Verdict
from cnnlab.reproduction.drawing import plot_curves, plot_dots
from cnnlab.training import Recipe

RECIPE = Recipe(epochs=2, batch_size=50, learning_rate=0.05, schedule="step", milestones=[1], target_accuracy=2.0)
DATA = "digits?train=200&test=50"


class Small(Study):
    """Two perceptrons on digits; the second row is asked for when the first has run."""

    name = "small"
    title = "Two small networks"
    claim = "the wide one is better"
    source = "a test"
    shortened = "one seed"
    quick_minutes = 0.1
    full_time = "seconds"
    figures: ClassVar[Mapping[str, str]] = {"dots": "accuracies", "curves": "curves"}

    def rows(self, results: Results) -> list[Row]:
        seeds = 1 if results.quick else 2
        narrow = Row("narrow", "four neurons", "mlp", RECIPE, seeds, {"hidden": (4,)}, DATA)
        wide = replace(narrow, name="wide", what="40 neurons", options={"hidden": (40,)})
        return [narrow, wide] if results.complete("narrow") else [narrow]

    def inspect(self, folder: Path) -> dict[str, Any]:
        return {"hidden": json.loads((folder / "recipe.json").read_text())["model"]["options"]["hidden"]}

    def measure(self, results: Results) -> dict[str, Any]:
        return {"runs": sum(len(row.runs) for row in results.rows.values())}

    def table(self, results: Results):
        return ("row", "accuracy"), [(row.row, f"{row.mean('test_accuracy'):.2f}") for row in results.finished()]

    def verdicts(self, results: Results) -> list[Verdict]:
        if not results.complete("narrow", "wide"):
            return [Verdict("wide is better", "a higher mean", afterwards=True)]
        narrow, wide = (results.rows[name].mean("test_accuracy") for name in ("narrow", "wide"))
        found = f"{wide:.2f} against {narrow:.2f}"
        return [Verdict.of("wide is better", "a higher mean", found, wide > narrow, afterwards=True)]

    def draw(self, results: Results):
        panels = [("one", ["narrow"]), ("other", ["wide"])]
        return {
            "dots": plot_dots(results.finished(), "test_accuracy", "accuracy, %", claims={"chance": 10}),
            "curves": plot_curves(results, panels, [("accuracy", "-", "test"), ("train_accuracy", "--", "train")], "e"),
        }


def made_up_run(seed: int, accuracy: float | None, **more: Any) -> dict[str, Any]:
    """A run as results.json has it; without an accuracy it has diverged."""
    run = {
        "seed": seed,
        "test_accuracy": accuracy,
        "last_accuracy": accuracy,
        "best_epoch": 2,
        "epochs": 2,
        "stop_reason": "completed all 2 epochs",
        "diverged": accuracy is None,
        "last_train_loss": 0.5,
        "last_train_accuracy": 0.9,
        "train_seconds": 60.0,
        "git_revision": "a" * 40,
        "git_dirty": False,
        "environment": {"jax": "0.10.2", "flax": "0.12.8", "backend": "cpu", "cpu": "a processor", "cpus": 2},
        "history": {
            "train_loss": [1.0, 0.5],
            "train_accuracy": [0.5, 0.9],
            "loss": [1.0, None],
            "accuracy": [0.4, accuracy],
            "learning_rate": [0.1, 0.01],
        },
    }
    return {**run, **more}


def made_up_row(name: str, accuracies: Sequence[float | None], planned: int | None = None, **more: Any) -> RowResults:
    """A row with a run per accuracy."""
    runs = [made_up_run(seed, accuracy, **more) for seed, accuracy in enumerate(accuracies)]
    return RowResults(name, f"what {name} is", planned_seeds=len(runs) if planned is None else planned, runs=runs)
