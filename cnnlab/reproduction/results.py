"""What the runs of a study found, as plain values."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .study import Row

CURVES = ("train_loss", "train_accuracy", "loss", "accuracy", "learning_rate")
MADE = "made by the study"


@dataclass(frozen=True)
class RowResults:
    """The finished runs of a row.

    Attributes:
        row, what: as in `Row`.
        model, options, recipe, data: what was trained, as plain values; the options with those that the data decide.
        images: `fingerprint`, `shape` and number of `classes` of the data; empty, as long as no run has told.
        planned_seeds: how many runs the study plans.
        seen_seeds: how many of them had been run when the rules that judge the row were written.
        asked_seeds: the most that were ever asked for (`--seeds`); None for all that are planned.
        runs: one record per seed, see `cnnlab.reproduction.gather.read_run`.
    """

    row: str
    what: str
    model: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] | None = None
    data: str = ""
    images: dict[str, Any] = field(default_factory=dict)
    planned_seeds: int = 0
    seen_seeds: int = 0
    asked_seeds: int | None = None
    runs: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def planned(cls, row: Row, seeds: int | None = None) -> RowResults:
        """Return a row without runs; with `seeds`, at most so many of its own were asked for."""
        data = row.data if isinstance(row.data, str) else MADE
        options, recipe = as_plain(row.options), as_plain(row.recipe.to_dict())
        told = cls(row.name, row.what, row.model, options, recipe, data)
        return replace(told, planned_seeds=row.seeds, seen_seeds=row.seen, asked_seeds=seeds)

    @property
    def wanted_seeds(self) -> int:
        """How many runs are to be trained: those planned, or fewer where fewer were asked for."""
        return self.planned_seeds if self.asked_seeds is None else min(self.asked_seeds, self.planned_seeds)

    @property
    def judged(self) -> RowResults:
        """The row with the runs that judge it: those that nobody had seen when the rules were written; all, if none."""
        unseen = [run for run in self.runs if run["seed"] >= self.seen_seeds]
        return replace(self, seen_seeds=0, runs=unseen) if unseen else self

    @property
    def complete(self) -> bool:
        """Whether every run that was asked for is there."""
        return self.planned_seeds > 0 and not self.lacking(self.wanted_seeds)

    def lacking(self, seeds: int) -> list[int]:
        """Return which of the first so many seeds have no run."""
        there = {run["seed"] for run in self.runs}
        return [seed for seed in range(seeds) if seed not in there]

    def values(self, key: str) -> list[float]:
        """Return what the runs have under `key`, leaving out those that have nothing, such as diverged ones."""
        return [run[key] for run in self.runs if run.get(key) is not None]

    def mean(self, key: str) -> float:
        """Return the mean over the runs; NaN without any."""
        values = self.values(key)
        return statistics.fmean(values) if values else math.nan

    def sd(self, key: str) -> float | None:
        """Return the standard deviation (n - 1); None for fewer than two runs."""
        values = self.values(key)
        return statistics.stdev(values) if len(values) > 1 else None

    def curves(self, key: str) -> list[list[float]]:
        """Return a curve per run, one value per epoch; `key` is one of `CURVES`."""
        return [run["history"][key] for run in self.runs if run.get("history")]


@dataclass(frozen=True)
class Results:
    """What a study found.

    Attributes:
        study: its name.
        quick: whether of the quick version.
        epochs: of a version with the schedules shortened to so many; None for those of the study.
        rows: by name, those without finished runs included.
        measured: what `Study.measure` returned.
    """

    study: str
    quick: bool = False
    epochs: int | None = None
    rows: dict[str, RowResults] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What its files are called."""
        shorter = "" if self.epochs is None else f"-{self.epochs}-epochs"
        return self.study + ("-quick" if self.quick else "") + shorter

    @property
    def empty(self) -> bool:
        """Whether nothing was found yet: no run, or where nothing is to be trained, nothing measured."""
        return not (any(row.runs for row in self.rows.values()) if self.rows else self.measured)

    def finished(self, *names: str) -> list[RowResults]:
        """Return the rows that have runs; with names, those among them, in that order."""
        rows = [self.rows[name] for name in names if name in self.rows] if names else self.rows.values()
        return [row for row in rows if row.runs]

    @property
    def asked_seeds(self) -> int | None:
        """The seeds of a row that were asked for (`--seeds`), where that were fewer than planned; None otherwise."""
        asked = [row.wanted_seeds for row in self.rows.values() if row.wanted_seeds < row.planned_seeds]
        return max(asked, default=None)

    def judged_seeds(self, row: RowResults) -> int:
        """Return how many runs of a row it takes to judge: all planned ones, of a shortened version those asked for."""
        return row.planned_seeds if self.epochs is None else row.wanted_seeds

    def complete(self, *names: str) -> bool:
        """Whether all rows (with names, those) are there with every run that was asked for."""
        wanted = names or tuple(self.rows)
        return all(name in self.rows and self.rows[name].complete for name in wanted)


def seconds_of(run: Mapping[str, Any]) -> float:
    """Return the seconds that a run trained for; seeds that trained at once share theirs."""
    return (run.get("train_seconds") or 0.0) / run.get("seeds_at_once", 1)


def device_of(run: Mapping[str, Any]) -> str:
    """Return what a run trained on: the processor and its threads, or the accelerator."""
    environment = run["environment"]
    if environment.get("backend") in (None, "cpu"):
        threads = environment.get("cpus")
        return str(environment.get("cpu")) + (f", {threads} thread{'s' * (threads > 1)}" if threads else "")
    return str(environment.get("device_kind"))


def revision(run: Mapping[str, Any]) -> str:
    """Return the git revision of a run, and whether it had changes."""
    return (run.get("git_revision") or "unknown") + (", changed" if run.get("git_dirty") else "")


def as_plain(value: Any) -> Any:
    """A value as it comes back from JSON: tuples as lists."""
    return json.loads(json.dumps(value, default=dict))
