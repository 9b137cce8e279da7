"""What the runs of a study found, as plain values: read from run folders, kept as JSON and CSV."""

from __future__ import annotations

import csv
import json
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cnnlab.training import Recipe

from .study import Row, Study

CURVES = ("train_loss", "train_accuracy", "loss", "accuracy", "learning_rate")
_FACTS = ("python", "jax", "jaxlib", "flax", "optax", "backend", "device_kind", "cpu", "cpus", "started")
_NUMBERS = re.compile(r"\[\s+((?:-?[\d.]+(?:e[-+]?\d+)?|null)(?:,\s+(?:-?[\d.]+(?:e[-+]?\d+)?|null))*)\s+\]")


@dataclass(frozen=True)
class RowResults:
    """The finished runs of a row.

    Attributes:
        row, what: as in `Row`.
        model, options, recipe, data: what was trained, as plain values.
        planned_seeds: how many runs it is to have.
        runs: one record per seed, see `read_run`.
    """

    row: str
    what: str
    model: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] | None = None
    data: str = ""
    planned_seeds: int = 0
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every planned run is there."""
        return 0 < self.planned_seeds <= len(self.runs)

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
        """Whether nothing was found yet."""
        return not (self.measured or any(row.runs for row in self.rows.values()))

    def finished(self, *names: str) -> list[RowResults]:
        """Return the rows that have runs; with names, those among them, in that order."""
        rows = [self.rows[name] for name in names if name in self.rows] if names else self.rows.values()
        return [row for row in rows if row.runs]

    def complete(self, *names: str) -> bool:
        """Whether all rows (with names, those) are there with every planned run."""
        wanted = names or tuple(self.rows)
        return all(name in self.rows and self.rows[name].complete for name in wanted)


def read_results(path: Path) -> Results | None:
    """Read what `write_results` wrote; None where there is no such file."""
    if not path.is_file():
        return None
    value = json.loads(path.read_text(encoding="utf-8"))
    fields = RowResults.__dataclass_fields__
    rows = [RowResults(**{key: row[key] for key in row if key in fields}) for row in value["rows"]]
    found = {row.row: row for row in rows}
    return Results(value["study"], value["quick"], value["epochs"], found, value["measured"])


def write_results(results: Results, study: Study, path: Path) -> None:
    """Write the JSON file: claim, command, verdicts, rows with n, mean, standard deviation and every run."""
    rows = []
    for row in results.rows.values():
        found = {"n": len(row.values("test_accuracy")), "mean": None, "sd": row.sd("test_accuracy")}
        if found["n"]:
            found["mean"] = row.mean("test_accuracy")
        plain = asdict(row)
        runs = plain.pop("runs")
        revisions = sorted({revision(run) for run in runs})
        rows.append({**plain, "test_accuracy": found, "revisions": revisions, "runs": runs})
    value = {
        "study": results.study,
        "quick": results.quick,
        "epochs": results.epochs,
        "claim": study.claim,
        "source": study.source,
        "command": command(results),
        "verdicts": [asdict(verdict) for verdict in study.verdicts(results)],
        "measured": results.measured,
        "rows": rows,
    }
    text = json.dumps(_strict(value), indent=1, allow_nan=False, ensure_ascii=False)
    text = _NUMBERS.sub(lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)  # a curve on one line
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")


def write_csv(results: Results, study: Study, path: Path) -> None:
    """Write a line per run, without curves and versions; where nothing was trained, the table."""
    lines = [{"row": row.row, **run} for row in results.rows.values() for run in row.runs]
    names = dict.fromkeys(key for line in lines for key in line if key not in ("environment", "history"))
    with open(path, "w", newline="", encoding="utf-8") as file:
        if lines:
            writer = csv.DictWriter(file, list(names), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(lines)
        else:
            head, cells = study.table(results)
            csv.writer(file).writerows([head, *cells])


def command(results: Results) -> str:
    """Return what one types to get these results."""
    shorter = "" if results.epochs is None else f" --epochs {results.epochs}"
    return f"python examples/reproduce.py {results.study}" + (" --quick" if results.quick else "") + shorter


def read_run(folder: Path, seed: int) -> dict[str, Any] | None:
    """Read the record of a finished run from its folder; None where it is not finished.

    Returns:
        `test_accuracy` (of the best epoch, on the test images), `last_accuracy` (after the last epoch, on the images
        that steer), `best_epoch`, `epochs`, `stop_reason`, `diverged`, losses, seconds (`seconds_of`), revision,
        `environment`, and in `history` a curve per epoch for each of `CURVES`.
    """
    if not (folder / "result.json").is_file():
        return None
    result, recipe = _read(folder / "result.json"), _read(folder / "recipe.json")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    environment = _read(folder / "environment.json")
    evaluation = result["evaluation"]
    return {
        "seed": seed,
        "test_accuracy": evaluation["accuracy"] if evaluation else None,
        "monitored_accuracy": result["best_accuracy"],
        "last_accuracy": lines[-1]["accuracy"] if evaluation else None,
        "best_epoch": result["best_epoch"],
        "epochs": result["epochs"],
        "stop_reason": result["stop_reason"],
        "diverged": evaluation is None,
        "last_train_loss": lines[-1]["train_loss"],
        "last_train_accuracy": lines[-1]["train_accuracy"],
        "parameters": recipe["model"]["parameters"],
        "train_seconds": result["train_seconds"],
        "seeds_at_once": result.get("seeds_at_once", 1),
        "images_per_second": statistics.median(line["images_per_second"] for line in lines),
        "git_revision": environment.get("cnnlab_revision") or environment.get("git_revision"),
        "git_dirty": environment.get("cnnlab_dirty") or environment.get("git_dirty"),
        "environment": {name: environment.get(name) for name in _FACTS},
        "history": {key: [_rounded(line.get(key)) for line in lines] for key in CURVES},
    }


def collect(rows: Iterable[Row], folders: Mapping[str, Sequence[Path]], known: Results) -> Results:
    """Put the finished runs of all rows together.

    Args:
        rows: of the study.
        folders: for each row the run folders, by seed, whether they are there or not.
        known: what was found before; a run whose folder is gone is taken from there, if it was of the same recipe.
    """
    found = {}
    for row in rows:
        data = row.data if isinstance(row.data, str) else "made by the study"
        told = RowResults(
            row.name, row.what, row.model, as_plain(row.options), as_plain(row.recipe.to_dict()), data, row.seeds
        )
        runs = [read_run(folder, seed) for seed, folder in enumerate(folders[row.name])]
        told.runs.extend(run for run in runs if run is not None)
        found[row.name] = told
    return merged(known, replace(known, rows=found))


def merged(known: Results, results: Results) -> Results:
    """Add to results the runs of their rows that were known before, of seeds that they lack."""
    rows = {}
    for name, row in results.rows.items():
        before, seeds = known.rows.get(name), {run["seed"] for run in row.runs}
        kept = before.runs if before is not None and _same(before, row) else []
        runs = [*row.runs, *(run for run in kept if run["seed"] not in seeds and run["seed"] < row.planned_seeds)]
        rows[name] = replace(row, runs=sorted(runs, key=lambda run: run["seed"]))
    return replace(results, rows=rows, measured={**known.measured, **results.measured})


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


def same_training(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two recipes, as plain values, train alike: what they are called and what is told of them may differ."""
    recipes = [Recipe.from_dict(dict(values)).replace(name="", source="", result="") for values in (one, other)]
    return recipes[0] == recipes[1]


def _same(before: RowResults, row: RowResults) -> bool:
    """Whether the known runs of a row are of what the row is now; those of before that was recorded are."""
    if before.recipe is None or row.recipe is None:
        return True
    told = [(r.model, r.data, as_plain(r.options)) for r in (before, row)]
    return told[0] == told[1] and same_training(before.recipe, row.recipe)


def as_plain(value: Any) -> Any:
    """Return a value as it comes back from JSON: tuples as lists."""
    return json.loads(json.dumps(value, default=dict))


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _rounded(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _strict(value: Any) -> Any:
    """The value with null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
