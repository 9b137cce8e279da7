"""Gathers what is there of a study: from run folders, and from what was known before of the same rows."""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cnnlab.data import Dataset, DatasetError
from cnnlab.experiment.networks import with_data_options
from cnnlab.training import CheckpointError, Recipe, RunFolder, RunFolderError

from .results import CURVES, MADE, Results, RowResults, as_plain
from .study import Row, Study

_FACTS = ("python", "jax", "jaxlib", "flax", "optax", "backend", "device_kind", "cpu", "cpus", "started")


def rows_of(study: Study, results: Results) -> list[Row]:
    """Return the rows of a version of a study, given what has been found so far."""
    rows = study.rows(results)
    return [row if results.epochs is None else row.in_epochs(results.epochs) for row in rows]


def read_run(folder: Path, seed: int) -> dict[str, Any] | None:
    """Read the record of a finished run from its folder; None where it is not finished.

    Returns:
        `test_accuracy` (of the best epoch, on the test images), `last_accuracy` (after the last epoch, on the images
        that steer), `best_epoch`, `epochs`, `stop_reason`, `diverged`, losses, seconds (`seconds_of`), revision,
        `environment`, and in `history` a curve per epoch for each of `CURVES`.
    """
    if not (folder / "result.json").is_file():
        return None
    run = RunFolder.open(folder)
    result, recipe, environment = (run.read_json(f"{name}.json") for name in ("result", "recipe", "environment"))
    lines, evaluation = run.read_metrics(), result["evaluation"]
    if not lines:
        raise RunFolderError(f"Expected epochs in {folder / 'metrics.jsonl'}, got none; do restore it.")
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


def collect(
    rows: Iterable[Row],
    folders: Mapping[str, Sequence[Path]],
    known: Results,
    *,
    seeds: int | None = None,
    inspect: Callable[[Path], dict[str, Any]] = lambda folder: {},
) -> Results:
    """Put the finished runs of all rows together.

    Args:
        rows: of the study.
        folders: for each row the run folders, by seed, whether they are there or not.
        known: what was found before; a run whose folder is gone is taken from there, if it was of the same row.
        seeds: at most so many of each row were asked for.
        inspect: `Study.inspect`.

    Raises:
        RunFolderError: a folder with a run of something else than its row.
    """
    rows, found = list(rows), {}
    for row in rows:
        told = RowResults.planned(row, seeds)
        before = known.rows.get(row.name)
        for seed, folder in enumerate(folders[row.name]):
            if (folder / "recipe.json").is_file():
                there = expect_of_the_row(row, folder)
                told = replace(told, options=there.options, images=there.images)
            if (run := read_run(folder, seed)) is not None:
                told.runs.append(_with_findings(run, before.runs if before else (), folder, inspect))
        found[row.name] = told
    return with_known(rows, replace(known, rows=found), known)


def with_known(rows: Iterable[Row], results: Results, known: Results) -> Results:
    """Add to results the runs that were known before, of seeds that they lack, if of what their row is now.

    The seeds asked for are the most that ever were: who has seen the runs can ask for more, but not for fewer.
    """
    found = dict(results.rows)
    for row in rows:
        now, before = found.get(row.name), known.rows.get(row.name)
        if now is None:
            now = RowResults.planned(row, results.asked_seeds)
        if before is not None and not what_differs(row, before, now.images):
            if not now.images:
                now = replace(now, options=before.options, images=before.images)
            seeds = {run["seed"] for run in now.runs}
            kept = [run for run in before.runs if run["seed"] not in seeds and run["seed"] < row.seeds]
            asked = _larger(now.asked_seeds, before.asked_seeds)
            now = replace(now, asked_seeds=asked, runs=sorted([*now.runs, *kept], key=lambda run: run["seed"]))
        found[row.name] = now
    return replace(results, rows=found)


def what_differs(row: Row, there: RowResults, images: Mapping[str, Any] | None = None) -> list[str]:
    """Return in what the runs that are there differ from what the row is now; nothing where that was not recorded.

    Args:
        row: of the study.
        there: from a run folder (`expect_of_the_row`) or a file.
        images: of the data, as in `RowResults`, where they are known.
    """
    if there.recipe is None:
        return []
    now, options = RowResults.planned(row), dict(row.options)
    if there.images and there.model == row.model:
        shape: Any = SimpleNamespace(image_shape=there.images["shape"], num_classes=there.images["classes"])
        options = with_data_options(row.model, options, shape)
    images = images_of(row.data()) if callable(row.data) else images
    pairs = {
        "network": (there.model, now.model),
        "options": (there.options, as_plain(options)),
        "data set": (there.data, now.data),
        "images": (there.images, images) if there.images and images else (None, None),
        "recipe": (_as_trained(there.recipe), _as_trained(row.recipe.to_dict())),
    }
    return [name for name, (one, other) in pairs.items() if one != other]


def expect_of_the_row(row: Row, folder: Path, dataset: Dataset | None = None) -> RowResults:
    """Return what the run in a folder trains; RunFolderError unless it is what the row says, on these data if given."""
    record = RunFolder.open(folder).read_json("recipe.json")
    model, data = record["model"], record["dataset"]
    there = RowResults(
        row.name,
        row.what,
        model=model["name"],
        options=model["options"] or {},
        recipe=record["recipe"],
        data=data["request"] or MADE,
        images=_images(data["fingerprint"], data["image_shape"], data["classes"]),
    )
    if differing := what_differs(row, there, images_of(dataset) if dataset is not None else None):
        raise RunFolderError(
            f"Expected a run of the row {row.name} in {folder}, got one with another {' and '.join(differing)}; "
            "do choose another --out, or remove it."
        )
    return there


def images_of(dataset: Dataset) -> dict[str, Any]:
    """Return what `RowResults.images` has of a data set."""
    return _images(dataset.fingerprint, dataset.image_shape, dataset.classes)


def _with_findings(
    run: dict[str, Any], known: Iterable[dict[str, Any]], folder: Path, inspect: Callable[[Path], dict[str, Any]]
) -> dict[str, Any]:
    """The run with what was found out about it: before, or now."""
    before = next((other for other in known if "found" in other and _identity(other) == _identity(run)), None)
    if before is not None:
        return {**run, "found": before["found"]}
    try:
        found = {} if run["diverged"] else inspect(folder)
    except (CheckpointError, DatasetError, RunFolderError, OSError) as error:
        print(f"{folder} is not inspected: {' '.join(str(error).split())}", file=sys.stderr)
        found = {}
    return {**run, "found": found} if found else run


def _larger(asked: int | None, before: int | None) -> int | None:
    """The larger of two numbers of seeds that were asked for; None is all that are planned."""
    return None if asked is None or before is None else max(asked, before)


def _identity(run: Mapping[str, Any]) -> tuple[Any, ...]:
    return run["seed"], run["environment"].get("started"), run["train_seconds"]


def _images(fingerprint: str, shape: Sequence[int], classes: Sequence[str]) -> dict[str, Any]:
    return {"fingerprint": fingerprint, "shape": list(shape), "classes": len(classes)}


def _as_trained(recipe: Mapping[str, Any]) -> Recipe:
    """A recipe without what it is called and what is told of it, which train nothing."""
    return Recipe.from_dict(dict(recipe)).replace(name="", source="", result="")


def _rounded(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
