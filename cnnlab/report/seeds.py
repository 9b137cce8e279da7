"""Puts the runs of several seeds together: rows, mean and standard deviation, one confusion matrix."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .folder import RunRecord, SeedsRecord
from .words import as_number, best_of

_SCORES = ("precision", "recall", "f1")


def statistics(values: Sequence[Any]) -> dict[str, float]:
    """Number, mean and sample standard deviation of the values that are known."""
    known = [value for value in map(as_number, values) if math.isfinite(value)]
    return {
        "n": len(known),
        "mean": float(np.mean(known)) if known else math.nan,
        "std": float(np.std(known, ddof=1)) if len(known) > 1 else math.nan,
    }


def seed_rows(record: SeedsRecord) -> list[dict[str, Any]]:
    """One row per seed: from `summary.json`, and from its own folder for a seed that is not listed there."""
    listed = {row.get("seed"): row for row in (record.summary or {}).get("rows", [])}
    rows = [listed.pop(seed, None) or _row(seed, run) for seed, run in record.runs.items()]
    return rows + list(listed.values())


def accuracy_of(record: SeedsRecord) -> dict[str, Any]:
    """n, mean and std of the accuracy: as `summary.json` has it, else over the finished seeds."""
    stated = (record.summary or {}).get("accuracy")
    return stated or statistics([row.get("accuracy") for row in seed_rows(record)])


def merge_evaluations(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """One evaluation out of several seeds'.

    Args:
        evaluations: evaluations of the same images.

    Returns:
        The sum of the confusion matrices, and per class the mean and (as `f1_std` and so on) the sample
        standard deviation of each score; None where the seeds differ in their classes or there is nothing to
        merge.
    """
    if not evaluations or any(one.get("classes") != evaluations[0].get("classes") for one in evaluations):
        return None
    merged = {key: evaluations[0].get(key) for key in ("split", "images", "classes")}
    tables = [one["per_class"] for one in evaluations if one.get("per_class")]
    if len(tables) == len(evaluations) and len({len(table) for table in tables}) == 1:
        merged["per_class"] = [_merge_rows(rows) for rows in zip(*tables, strict=True)]
    matrices = [one["confusion_matrix"] for one in evaluations if one.get("confusion_matrix")]
    if len(matrices) == len(evaluations):
        merged["confusion_matrix"] = np.sum(matrices, axis=0).tolist()
    return merged


def _merge_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {"name": rows[0].get("name"), "support": rows[0].get("support")}
    for score in _SCORES:
        stats = statistics([row.get(score) for row in rows])
        merged[score], merged[f"{score}_std"] = stats["mean"], stats["std"]
    return merged


def _row(seed: int, run: RunRecord) -> dict[str, Any]:
    last = run.history[-1].get("epoch") if run.history else 0
    if run.result is None:
        epoch, accuracy = best_of(run.history)
        stop = f"still running, or interrupted after epoch {last}"
        return {
            "seed": seed,
            "best_accuracy": accuracy,
            "best_epoch": epoch,
            "epochs": last,
            "stop_reason": stop,
        }
    keys = ("best_accuracy", "best_epoch", "epochs", "stop_reason")
    accuracy = (run.evaluation or {}).get("accuracy")
    return {"seed": seed, "accuracy": accuracy, **{key: run.result.get(key) for key in keys}}
