"""Precision, recall and F1 of each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import BLUE, INK, ORANGE, SOFT, drawing_style, new_figure, shorten
from .words import as_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 40
_BARS = (("precision", "precision", BLUE), ("recall", "recall", ORANGE), ("f1", "F1", SOFT))


def plot_per_class(per_class: Sequence[Mapping[str, Any]]) -> Figure:
    """Three bars per class: precision, recall, F1.

    Args:
        per_class: one mapping per class with `name`, `precision`, `recall`, `f1` (each in 0..1).

    Returns:
        A figure; of more than 40 classes it shows the 40 with the lowest F1, weakest first.

    Raises:
        ValueError: there is no class.
    """
    if not per_class:
        raise ValueError("Expected one or more classes, got none; pass `per_class` of an evaluation.")
    rows, title = list(per_class), "Precision, recall and F1 of each class, %"
    if len(rows) > _SHOWN:
        title = f"The {_SHOWN} classes of {len(rows)} with the lowest F1, %"
        rows = sorted(rows, key=lambda row: np.nan_to_num(as_number(row.get("f1"))))[:_SHOWN]
    with drawing_style():
        figure = new_figure(9.6, 1.0 + 0.42 * len(rows))
        axes = figure.add_subplot()
        for offset, (key, label, color) in zip((-0.25, 0.0, 0.25), _BARS, strict=True):
            values = 100 * np.nan_to_num([as_number(row.get(key)) for row in rows])
            places = np.arange(len(rows)) + offset
            axes.barh(places, values, height=0.23, color=color, label=label)
        for place, row in enumerate(rows):
            scores = [100 * float(np.nan_to_num(as_number(row.get(key)))) for key, *_ in _BARS]
            axes.text(max(scores) + 0.8, place, f"F1 {scores[2]:.1f}", va="center", fontsize=7, color=SOFT)
        axes.set_yticks(range(len(rows)), [shorten(row.get("name"), 24) for row in rows], color=INK)
        axes.set_ylim(len(rows) - 0.45, -0.55)
        axes.set_xlim(0, 100)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_title(title, pad=12)
        axes.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, handlelength=1.0, borderaxespad=0.3)
        return figure
