"""What the commands print: tables, JSON, short paths. Plain where standard output is no terminal."""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: drawn on a terminal, elsewhere columns two spaces apart that nothing cuts short."""
    if sys.stdout.isatty():
        _draw_table(columns, rows)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _draw_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))  # as Text, so that brackets in a path are no mark-up
    Console(file=sys.stdout).print(table)


def print_json(value: Any) -> None:
    """Print strict JSON: NaN and infinities are null."""
    print(json.dumps(json.loads(json.dumps(value), parse_constant=lambda _: None), indent=2))


def short(path: Path) -> str:
    """The path, relative to the working directory when it lies in it."""
    try:
        return str(path.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def over_seeds(accuracies: Sequence[float]) -> str:
    """Mean and, of two or more, standard deviation (n - 1)."""
    spread = f", standard deviation {statistics.stdev(accuracies):.2%}" if len(accuracies) > 1 else ""
    return f"accuracy {statistics.fmean(accuracies):.2%}{spread} over {len(accuracies)} seeds"
