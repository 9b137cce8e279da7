"""Reads a run folder, believing nothing: what is wrong is named by file and line."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ReportError

_MAX_BYTES = 64 * 2**20
_NUMBERS = (
    "train_loss",
    "train_accuracy",
    "loss",
    "accuracy",
    "learning_rate",
    "best_accuracy",
    "best_epoch",
)
_SEED = re.compile(r"seed-(\d+)")


@dataclass(frozen=True)
class RunRecord:
    """What one run folder says.

    Args:
        folder: where it lies.
        recipe: `recipe.json`.
        environment: `environment.json`, or {}.
        history: lines of `metrics.jsonl` in the order of the epochs, each epoch once.
        result: `result.json`, or None while the run is unfinished.
        torn: whether the last line of `metrics.jsonl` was cut off by a kill (it is left out).
    """

    folder: Path
    recipe: dict[str, Any]
    environment: dict[str, Any]
    history: list[dict[str, Any]]
    result: dict[str, Any] | None
    torn: bool

    @property
    def evaluation(self) -> dict[str, Any] | None:
        """The evaluation of a finished run."""
        return (self.result or {}).get("evaluation")


@dataclass(frozen=True)
class SeedsRecord:
    """What a parent folder of seeds says.

    Args:
        folder: where it lies.
        runs: seed -> its run, in the order of the seeds.
        summary: `summary.json`, or None while seeds are unfinished.
    """

    folder: Path
    runs: dict[int, RunRecord]
    summary: dict[str, Any] | None


def read_folder(folder: Path) -> RunRecord | SeedsRecord:
    """Reads a run folder, or the parent folder of `seed-0`, `seed-1`, ...

    Raises:
        ReportError: the folder is neither, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise ReportError(f"Expected a run folder, got {folder}, which is no folder; give the --out of a run.")
    if (folder / "recipe.json").is_file() and (folder / "metrics.jsonl").is_file():
        return _read_run(folder)
    seeds = [(int(match[1]), path) for path in folder.iterdir() if (match := _SEED.fullmatch(path.name))]
    runs = {seed: _read_run(path) for seed, path in sorted(seeds) if (path / "recipe.json").is_file()}
    if runs:
        return SeedsRecord(folder, runs, _read_summary(folder / "summary.json"))
    if (folder / "recipe.json").is_file():
        return _read_run(folder)
    raise ReportError(
        f"Expected a run folder with recipe.json or seed-0/recipe.json, got {folder} without; give the --out of a run."
    )


def _read_run(folder: Path) -> RunRecord:
    recipe = _read_object(folder / "recipe.json")
    for key in ("model", "dataset", "recipe"):
        _expect(
            isinstance(recipe.get(key), dict),
            folder / "recipe.json",
            f"an object under {key!r}",
            recipe.get(key),
        )
    environment = folder / "environment.json"
    history, torn = _read_metrics(folder / "metrics.jsonl")
    return RunRecord(
        folder=folder,
        recipe=recipe,
        environment=_read_object(environment) if environment.exists() else {},
        history=history,
        result=_read_result(folder / "result.json"),
        torn=torn,
    )


def _read_metrics(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """The epochs in order. One that was trained again after a resume counts once, as it was last written."""
    if not path.exists():
        return [], False
    lines = _read_bytes(path).split(b"\n")
    epochs: dict[int, dict[str, Any]] = {}
    for number, raw in enumerate(lines, start=1):
        if not raw.strip():
            continue
        try:
            line = json.loads(raw.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            if number == len(lines):  # no line feed after it: the writer was killed
                return _in_order(epochs), True
            raise ReportError(
                f"Expected one JSON object per line in {path}, got line {number} that does not parse "
                f"({_reason(error)}); repair or delete that line."
            ) from None
        where = f"{path}, line {number}"
        _expect(isinstance(line, dict), where, "a JSON object", line)
        epoch = line.get("epoch")
        _expect(type(epoch) is int and epoch > 0, where, "a positive whole number under 'epoch'", epoch)
        for key in _NUMBERS:
            _expect(_is_number(line.get(key)), where, f"a number or null under {key!r}", line.get(key))
        epochs[epoch] = line
    return _in_order(epochs), False


def _in_order(epochs: Mapping[int, dict[str, Any]]) -> list[dict[str, Any]]:
    return [epochs[epoch] for epoch in sorted(epochs)]


def _read_result(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    result = _read_object(path)
    evaluation = result.get("evaluation")
    if evaluation is None:
        return result
    _expect(isinstance(evaluation, dict), path, "an object under 'evaluation'", evaluation)
    classes = evaluation.get("classes")
    _expect(isinstance(classes, list | None), path, "a list under 'classes'", classes)
    per_class = evaluation.get("per_class")
    good = per_class is None or (isinstance(per_class, list) and all(isinstance(row, dict) for row in per_class))
    _expect(good, path, "a list of objects under 'per_class'", per_class)
    matrix = evaluation.get("confusion_matrix")
    if matrix is not None:
        size = len(classes or ())
        good = isinstance(matrix, list) and len(matrix) == size and all(_is_counts(row, size) for row in matrix)
        _expect(good, path, f"a confusion matrix of {size} x {size} counts, one row and column per class", matrix)
    return result


def _read_summary(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    summary = _read_object(path)
    rows, stats = summary.get("rows"), summary.get("accuracy")
    good = isinstance(rows, list) and all(isinstance(row, dict) and type(row.get("seed")) is int for row in rows)
    _expect(good, path, "a list of objects, each with its seed, under 'rows'", rows)
    _expect(isinstance(stats, dict | None), path, "an object under 'accuracy'", stats)
    return summary


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(_read_bytes(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ReportError):
            raise
        line = f"line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "a file"
        raise ReportError(
            f"Expected a JSON object in {path}, got {line} that does not parse ({_reason(error)}); "
            "restore the file or train again."
        ) from None
    _expect(isinstance(value, dict), path, "a JSON object", value)
    return value


def _read_bytes(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ReportError(f"Expected {path} below {_MAX_BYTES:,} bytes, got {size:,}; this is no run file.")
        return path.read_bytes()
    except OSError as error:
        raise ReportError(f"Expected to read {path}, got {error.strerror}; check its rights.") from None


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _is_counts(row: Any, size: int) -> bool:
    return isinstance(row, list) and len(row) == size and all(type(cell) is int and cell >= 0 for cell in row)


def _reason(error: BaseException) -> str:
    return str(getattr(error, "msg", None) or type(error).__name__)


def _expect(condition: bool, where: str | Path, what: str, got: Any) -> None:
    if not condition:
        text = json.dumps(got)
        text = text if len(text) <= 60 else text[:59] + "…"
        raise ReportError(f"Expected {what} in {where}, got {text}; restore the file or train again.")
