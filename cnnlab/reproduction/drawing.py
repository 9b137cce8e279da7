"""Figures that several studies share: a dot per run, and curves by epoch."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnlab.report.style import BLUE, CYCLE, INK, SOFT, VERMILION, drawing_style, new_figure

from .results import Results, RowResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

_DIAMOND: dict[str, Any] = dict(color=VERMILION, linestyle="none", marker="D", markersize=6, markerfacecolor="none")


def plot_dots(
    rows: Sequence[RowResults],
    key: str,
    label: str,
    *,
    error: bool = False,
    claims: Mapping[str, float] | None = None,
    marks: tuple[str, Mapping[str, float]] | None = None,
) -> Figure:
    """A line per row: a dot per run and a bar at the mean.

    Args:
        rows: with runs.
        key: what the runs have it under.
        label: of the axis, with its unit.
        error: draw 1 minus the accuracy.
        claims: text and value (in the label's unit) of upright lines.
        marks: diamonds: what they are, for the legend, and by the names of rows the value (in the label's unit).
    """
    with drawing_style():
        figure = new_figure(9.6, 0.42 * len(rows) + 1.3)
        axes = figure.add_subplot()
        for y, row in enumerate(rows):
            values = [100 * (1 - value if error else value) for value in row.values(key)]
            axes.plot(values, [y] * len(values), "o", color=BLUE, alpha=0.6, markersize=6)
            if values:
                axes.plot([statistics.fmean(values)] * 2, [y - 0.3, y + 0.3], color=BLUE, linewidth=2)
            if marks and row.row in marks[1]:
                axes.plot([marks[1][row.row]], [y], **_DIAMOND)
        for text, value in (claims or {}).items():
            axes.axvline(value, color=VERMILION, linewidth=1.5)
            axes.annotate(text, (value, -0.75), color=VERMILION, ha="right", va="center", xytext=(-6, 0),
                          textcoords="offset points")  # fmt: skip
        axes.set_yticks(range(len(rows)), [row.row for row in rows], color=INK)
        axes.set_ylim(len(rows) - 0.4, -1.1)
        axes.set_xlabel(label)
        axes.grid(axis="x")
        if marks:
            dot, bar = {"color": BLUE, "linestyle": "none"}, {"color": BLUE, "linewidth": 2}
            handles = [_in_legend("a run", marker="o", alpha=0.6, **dot), _in_legend("mean", **bar)]
            handles.append(_in_legend(marks[0], **_DIAMOND))
            axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, borderaxespad=0)
        return figure


def plot_curves(
    results: Results,
    panels: Sequence[tuple[str, Sequence[str]]],
    curves: Sequence[tuple[str, str, str]],
    label: str,
) -> Figure:
    """Curves of the error by epoch, a panel beside the other, a colour per row; a line per run.

    Args:
        results: of a study.
        panels: of each panel the title and the names of its rows.
        curves: of each kind of curve the key of its accuracies (one of `results.CURVES`), the style of its line, such
            as "-", and what it is called in the legend.
        label: of the upright axis.
    """
    with drawing_style():
        figure = new_figure(4.8 * len(panels), 3.9)
        shared = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, (title, names) in zip(shared, panels, strict=True):
            handles = [_in_legend(name, color=SOFT, linestyle=style) for _, style, name in curves]
            for color, row in zip(CYCLE, results.finished(*names), strict=False):
                handles.append(_in_legend(row.row, color=color))
                for key, style, _ in curves:
                    for curve in row.curves(key):
                        draw_errors(axes, key, curve, linestyle=style, color=color)
            axes.set_title(title)
            axes.set_xlabel("epoch")
            axes.grid(axis="y")
            if axes.lines:
                axes.legend(handles=handles, loc="best")
        shared[0].set_ylabel(label)
        return figure


def draw_errors(axes: Axes, key: str, accuracies: Sequence[float | None], **look: Any) -> None:
    """Draw the errors in per cent that belong to the accuracies of a run, by epoch.

    What is counted during an epoch, as training accuracy is, stands at the middle of it; the rest at its end.

    Args:
        axes: to draw in.
        key: what the accuracies are, one of `results.CURVES`.
        accuracies: one per epoch; None is left out.
        look: of the line, as matplotlib has it.
    """
    shift = 0.5 if key.startswith("train_") else 0.0
    known = [(epoch - shift, 100 * (1 - value)) for epoch, value in enumerate(accuracies, 1) if value is not None]
    width = 1.6 if look.get("linestyle", "-") == "-" else 1.1
    axes.plot([epoch for epoch, _ in known], [error for _, error in known], **{"linewidth": width, **look})


def _in_legend(name: str, **look: Any) -> Line2D:
    """An entry of a legend that belongs to no single line."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=name, **look)
