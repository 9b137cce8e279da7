"""Figures that several studies share: a dot per run, and curves by epoch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cnnlab.report.style import BLUE, CYCLE, INK, SOFT, VERMILION, drawing_style, new_figure

from .results import Results, RowResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_dots(
    rows: Sequence[RowResults],
    key: str,
    label: str,
    *,
    error: bool = False,
    claims: Mapping[str, float] | None = None,
) -> Figure:
    """A line per row: a dot per run and a bar at the mean.

    Args:
        rows: with runs.
        key: what the runs have it under.
        label: of the axis, with its unit.
        error: draw 1 minus the accuracy.
        claims: text and value (in the label's unit) of upright lines; a row's name as text marks that row alone.
    """
    claims = dict(claims or {})
    with drawing_style():
        figure = new_figure(9.6, 0.42 * len(rows) + 1.3)
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            values = [100 * (1 - value if error else value) for value in row.values(key)]
            axes.plot(values, [y] * len(values), "o", color=BLUE, alpha=0.6, markersize=6)
            if values:
                axes.plot([statistics.fmean(values)] * 2, [y - 0.3, y + 0.3], color=BLUE, linewidth=2)
            if row.row in claims:
                axes.plot([claims.pop(row.row)], [y], "D", color=VERMILION, markersize=6, markerfacecolor="none")
        for text, value in claims.items():
            axes.axvline(value, color=VERMILION, linewidth=1.5)
            axes.annotate(text, (value, -0.75), color=VERMILION, ha="right", va="center", xytext=(-6, 0),
                          textcoords="offset points")  # fmt: skip
        axes.set_yticks(range(len(rows)), [row.row for row in rows], color=INK)
        axes.set_ylim(len(rows) - 0.4, -1.1)
        axes.set_xlabel(label)
        axes.grid(axis="x")
        return figure


def plot_curves(
    results: Results,
    panels: Sequence[tuple[str, Sequence[str]]],
    curves: Sequence[tuple[str, str]],
    label: str,
) -> Figure:
    """Curves of the error by epoch, a panel beside the other, a colour per row; a line per run.

    Args:
        results: of a study.
        panels: of each panel the title and the names of its rows.
        curves: of each kind of curve the key of its accuracies (one of `results.CURVES`) and the style
            of its line, such as "-".
        label: of the upright axis.
    """
    with drawing_style():
        figure = new_figure(4.8 * len(panels), 3.9)
        shared = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, names) in zip(shared, panels, strict=True):
            for color, row in zip(CYCLE, results.finished(*names), strict=False):
                for key, style in curves:
                    for number, curve in enumerate(row.curves(key)):
                        values = [None if accuracy is None else 100 * (1 - accuracy) for accuracy in curve]
                        first = number == 0 and style == curves[0][1]
                        _draw(axes, values, color, style, row.row if first else None)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.grid(axis="y")
            if axes.lines:
                axes.legend(loc="best")
        shared[0].set_ylabel(label)
        return figure


def _draw(axes: Axes, values: Sequence[float | None], color: str, style: str, name: str | None) -> None:
    epochs = [epoch for epoch, value in enumerate(values, 1) if value is not None]
    known = [value for value in values if value is not None]
    axes.plot(epochs, known, style, color=color or SOFT, linewidth=1.6 if style == "-" else 1.1, label=name)
