"""What the report has to say about a folder, before it is laid out: one shape for one run and for many."""

from __future__ import annotations

import shlex
import statistics as stats
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .folder import RunRecord, SeedsRecord
from .seeds import accuracy_of, merge_evaluations, seed_rows
from .words import (
    MISSING,
    as_number,
    best_of,
    count,
    diverged,
    duration,
    headline,
    honesty,
    mean_and_std,
    percent,
    seeds_headline,
)


@dataclass(frozen=True)
class Story:
    """The contents of a report, as plain text and plain data.

    Args:
        kicker: the line above the headline: recipe, seed, date.
        headline: the outcome in a sentence.
        honest: how far the figure can be trusted, or "".
        optimistic: whether `honest` is a warning.
        notices: what else must be known first, such as "still running" or "diverged".
        commands: what to type next, such as the resume command.
        numbers: (value, label, remark) of the first screen.
        histories: one list of epochs for each run that has one.
        monitor: what the runs watch: "test" or "validation".
        evaluation: the evaluation, or that of all seeds together, or None.
        rows: one row per seed; empty for a single run.
        stop_reason: why a single finished run stopped, or "".
        recipe: `recipe.json` (of the first seed).
        environment: `environment.json` (of the first seed).
        folder: the folder.
    """

    kicker: str
    headline: str
    honest: str
    optimistic: bool
    notices: list[str]
    commands: list[str]
    numbers: list[tuple[str, str, str]]
    histories: list[list[dict[str, Any]]]
    monitor: str
    evaluation: Mapping[str, Any] | None
    recipe: dict[str, Any]
    environment: dict[str, Any]
    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    stop_reason: str = ""


def tell_run(run: RunRecord) -> Story:
    """The story of one run folder."""
    result, evaluation, last = run.result or {}, run.evaluation or {}, _last(run.history)
    epoch, accuracy = best_of([result] if result else run.history)
    planned = run.recipe["recipe"].get("epochs")
    protocol = None if diverged(result) else result.get("protocol")  # it never came to the test set
    held_out = run.recipe["dataset"].get("held_out_images")
    honest = honesty(protocol, run.history, held_out) if epoch is not None else ""
    monitor = str(last.get("monitor") or "monitored")
    numbers = [(percent(evaluation["accuracy"], 2), "test accuracy", "")] if "accuracy" in evaluation else []
    if not numbers or monitor == "validation":
        numbers.append((percent(accuracy, 2), f"best {monitor} accuracy", ""))
    if "f1" in evaluation:
        numbers.append((percent(evaluation["f1"]), "macro F1", "mean over classes"))
    of_epochs = f"of {count(result.get('epochs', last.get('epoch')))}, at most {count(planned)}"
    numbers.append((count(epoch), "best epoch", of_epochs))
    return Story(
        kicker=_kicker(run, f"seed {run.recipe.get('seed', MISSING)}"),
        headline=headline(_model(run), _dataset(run), run.history, run.result, planned),
        honest=honest,
        optimistic=honest.startswith("The test set steered"),
        notices=_notices(run),
        commands=_resume(run),
        numbers=numbers + _costs([run]),
        histories=[run.history] if run.history else [],
        monitor=monitor,
        evaluation=run.evaluation,
        stop_reason="" if diverged(result) else str(result.get("stop_reason") or ""),
        recipe=run.recipe,
        environment=_environment(run),
        folder=run.folder,
    )


def tell_seeds(record: SeedsRecord) -> Story:
    """The story of a parent folder of seeds."""
    runs = list(record.runs.values())
    first, rows, accuracy = runs[0], seed_rows(record), accuracy_of(record)
    finished = [run for run in runs if run.result and not diverged(run.result)]
    told_by = finished[0] if finished else first
    protocol = (told_by.result or {}).get("protocol") if finished else None
    honest = honesty(protocol, told_by.history, first.recipe["dataset"].get("held_out_images"))
    evaluations = [run.evaluation for run in runs if run.evaluation]
    lost = sum(diverged(run.result) for run in runs)
    images = evaluations[0].get("images") if evaluations else first.recipe["dataset"].get("test_images")
    known = [as_number(row.get("accuracy")) for row in rows]
    known = [value for value in known if value == value]
    extremes = f"{percent(min(known), sign=False)} to {percent(max(known))}" if known else ""
    return Story(
        kicker=_kicker(first, f"{len(rows)} seeds"),
        headline=seeds_headline(_model(first), _dataset(first), accuracy, images, len(rows), lost),
        honest=honest,
        optimistic=honest.startswith("The test set steered"),
        notices=[f"seed {seed}: {note}" for seed, run in record.runs.items() for note in _notices(run)],
        commands=[command for run in runs for command in _resume(run)],
        numbers=[
            (mean_and_std(accuracy, 2), "test accuracy", f"mean ± std, n = {count(accuracy.get('n'))}"),
            (extremes or MISSING, "lowest to highest", ""),
            *_costs(runs),
        ],
        histories=[run.history for run in runs if run.history],
        monitor=str(_last(told_by.history).get("monitor") or "monitored"),
        evaluation=merge_evaluations(evaluations),
        rows=rows,
        recipe=first.recipe,
        environment=_environment(first),
        folder=record.folder,
    )


def _last(history: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return history[-1] if history else {}


def _model(run: RunRecord) -> str:
    return str(run.recipe["model"].get("name", "the model"))


def _dataset(run: RunRecord) -> str:
    return str(run.recipe["dataset"].get("name", "the data set"))


def _kicker(run: RunRecord, which: str) -> str:
    recipe = run.recipe["recipe"].get("name")
    started = str(run.environment.get("started", ""))[:10]
    return " · ".join(part for part in ("cnnlab", recipe and f"recipe {recipe}", which, started) if part)


def _environment(run: RunRecord) -> dict[str, Any]:
    """`environment.json`, with only the dates of the sessions after the first."""
    sessions = run.environment.get("resumed")
    if not isinstance(sessions, list):
        return run.environment
    dates = [session.get("started") if isinstance(session, dict) else None for session in sessions]
    return {**run.environment, "resumed": ", ".join(str(date or MISSING) for date in dates)}


def _notices(run: RunRecord) -> list[str]:
    notices = [f"{(run.result or {})['stop_reason']}."] if diverged(run.result) else []
    if run.result is None:
        last = _last(run.history).get("epoch", 0)
        planned = as_number(run.recipe["recipe"].get("epochs"))
        of = f" of {count(planned)}" if planned == planned else ""
        notices.append(f"still running, or interrupted after epoch {last}{of}.")
    if run.torn:
        notices.append("the last line of metrics.jsonl is torn (the writer was killed) and is left out here.")
    return notices


def _resume(run: RunRecord) -> list[str]:
    return [] if run.result else [f"cnnlab resume {shlex.quote(str(run.folder))}"]


def _costs(runs: Sequence[RunRecord]) -> list[tuple[str, str, str]]:
    """Size, time and speed; compile time stands apart."""
    numbers = []
    parameters = as_number(runs[0].recipe["model"].get("parameters"))
    if parameters == parameters:
        numbers.append((count(parameters), "parameters", ""))
    each = "" if len(runs) == 1 else " per seed"
    results = [run.result for run in runs if run.result]
    seconds = _median(result.get("train_seconds") for result in results)
    if seconds is None and len(runs) == 1:
        seconds = sum(as_number(line.get("seconds", 0)) for line in runs[0].history) or None
    compiling = _median(result.get("compile_seconds") for result in results)
    if seconds is not None:
        remark = f"and {duration(compiling)} to compile" if compiling is not None else ""
        numbers.append((duration(seconds), f"training time{each}", remark))
    speed = _median(line.get("images_per_second") for run in runs for line in run.history)
    if speed is not None:
        numbers.append((count(speed), "images per second", "median epoch"))
    return numbers


def _median(values: Any) -> float | None:
    known = [number for number in map(as_number, values) if number == number]
    return stats.median(known) if known else None
