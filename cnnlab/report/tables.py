"""The figures of an evaluation as CSV, for spreadsheets and other programs."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_COLUMNS = ("precision", "recall", "f1", "support")


def write_per_class_csv(path: Path, per_class: Sequence[Mapping[str, Any]]) -> Path:
    """One row per class: class, precision, recall, f1, support; numbers in full precision."""
    rows = [[row.get("name"), *(row.get(key) for key in _COLUMNS)] for row in per_class]
    return _write(path, [["class", *_COLUMNS], *rows])


def write_confusion_csv(path: Path, matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Path:
    """One row per true class, one column per predicted class."""
    rows = [[name, *row] for name, row in zip(classes, matrix, strict=True)]
    return _write(path, [["true class", *classes], *rows])


def _write(path: Path, rows: Sequence[Sequence[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    return path
