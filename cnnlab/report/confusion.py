"""The confusion matrix: as a figure, and as the pairs that stand out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .style import INK, SOFT, drawing_style, new_figure, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ANNOTATED = 20  # more classes than this: colours only
_NAMED = 50  # more classes than this: no names on the axes


def plot_confusion_matrix(
    matrix: np.ndarray | Sequence[Sequence[int]], classes: Sequence[str], normalize: bool = True
) -> Figure:
    """Which class was taken for which: a row for each true class, a column for each prediction.

    Args:
        matrix: counts, `[classes, classes]`, rows = true class.
        classes: names in the order of the rows.
        normalize: show each row as per cent of its true class; else counts.

    Returns:
        A figure; cells carry their value up to 20 classes.

    Raises:
        ValueError: the matrix is not square or does not fit the names.
    """
    counts = np.asarray(matrix, dtype=float)
    if counts.ndim != 2 or counts.shape != (len(classes), len(classes)) or not len(classes):
        raise ValueError(
            f"Expected a matrix of shape [{len(classes)}, {len(classes)}], one row and column per class, "
            f"got {list(counts.shape)}; pass the names of all classes."
        )
    totals = counts.sum(axis=1, keepdims=True)
    values = np.divide(100 * counts, totals, out=np.zeros_like(counts), where=totals > 0) if normalize else counts
    annotated = len(classes) <= _ANNOTATED
    side = 2.2 + 0.46 * max(len(classes), 4) if annotated else 7.6
    with drawing_style():
        figure = new_figure(side + 0.9, side)
        axes = figure.add_subplot()
        top = 100.0 if normalize and annotated else max(float(values.max()), 1.0)
        image = axes.imshow(values, cmap="Blues", vmin=0, vmax=top, interpolation="nearest")
        _name_axes(axes, classes)
        axes.set_title("Per cent of each true class" if normalize else "Number of images", pad=12)
        if annotated:
            _annotate(axes, values, top, normalize)
        else:
            bar = figure.colorbar(image, ax=axes, shrink=0.5, aspect=30)
            bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        return figure


def _name_axes(axes: Axes, classes: Sequence[str]) -> None:
    axes.spines[:].set_visible(False)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(classes) > _NAMED:
        return
    names = [shorten(name, 18) for name in classes]
    size = 9 if len(classes) <= _ANNOTATED else 6
    upright = max(map(len, names)) > 4
    axes.set_xticks(range(len(names)), names, fontsize=size, color=INK)
    axes.set_yticks(range(len(names)), names, fontsize=size, color=INK)
    if upright:
        for tick in axes.get_xticklabels():
            tick.set(rotation=45, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    if len(classes) <= _ANNOTATED:  # white lines between the cells
        edges = np.arange(len(names) + 1) - 0.5
        axes.set_xticks(edges, minor=True)
        axes.set_yticks(edges, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)


def _annotate(axes: Axes, values: np.ndarray, top: float, normalize: bool) -> None:
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        text = "<1" if normalize and 0 < value < 0.5 else f"{value:.0f}"
        color = "white" if value > 0.55 * top else INK if value else SOFT
        weight = "bold" if row == column else "normal"
        size = 9 if len(text) < 4 else 7
        axes.text(
            column,
            row,
            text,
            ha="center",
            va="center_baseline",
            fontsize=size,
            color=color,
            fontweight=weight,
        )


def confused_pairs(
    matrix: np.ndarray | Sequence[Sequence[int]], classes: Sequence[str], top: int = 3
) -> list[tuple[str, str, int, int]]:
    """The most frequent mistakes.

    Args:
        matrix: counts, `[classes, classes]`, rows = true class.
        classes: names in the order of the rows.
        top: how many at most.

    Returns:
        Tuples (true class, taken for, how often, images of the true class), most frequent first; equal counts
        in the order of the matrix. Pairs that never occur are left out.
    """
    counts = np.asarray(matrix).copy()
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:top]
    pairs = [(int(index) // len(classes), int(index) % len(classes)) for index in order]
    return [(classes[i], classes[j], int(counts[i, j]), int(totals[i])) for i, j in pairs if counts[i, j] > 0]
