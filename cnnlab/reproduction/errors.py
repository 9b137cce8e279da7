"""Shares and errors over the runs of a row, and how they are written."""

from __future__ import annotations

from collections.abc import Sequence

from .cells import percent
from .results import RowResults


def errors(row: RowResults, key: str) -> list[float]:
    """Return one minus the accuracy that the runs have under `key`, leaving out those that diverged."""
    return [1 - run[key] for run in row.runs if not run["diverged"] and run.get(key) is not None]


def row_cell(row: RowResults | None, shares: Sequence[float]) -> str:
    """Write shares of a row as `8.75 ± 0.16 % (5)`; how many runs diverged, and "not run" without runs."""
    if row is None or not row.runs:
        return "not run"
    lost = sum(run["diverged"] for run in row.runs)
    parts = [percent(shares)] if shares or not lost else []
    return ", ".join([*parts, f"{lost} diverged"] if lost else parts)


def error_cell(row: RowResults | None, key: str) -> str:
    """Write the errors of a row, see `row_cell`."""
    return row_cell(row, errors(row, key) if row is not None else [])
