"""Learning curves of one run, of the seeds of one run, or of runs to compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .style import BLUE, CYCLE, INK, SOFT, VERMILION, drawing_style, new_figure, shorten
from .words import as_number, best_of, percent, rate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Sequence[Mapping[str, Any]]
Curve = tuple[np.ndarray, np.ndarray]

_PANELS = (("Loss", "train_loss", "loss", 1.0), ("Accuracy, %", "train_accuracy", "accuracy", 100.0))


def plot_learning_curves(histories: Sequence[History], labels: Sequence[str] | None = None) -> Figure:
    """Loss and accuracy by epoch, in training and on the monitored images.

    One history shows a thin vertical line at each cut of the learning rate and a dot at the best epoch.
    Several histories without `labels` are seeds of one run: thin lines, and their mean for as long as all of
    them last. Several histories with `labels` are different runs: one colour each, training dashed.

    Args:
        histories: for each run the list of its `metrics.jsonl` objects, one per epoch.
        labels: one name for each history.

    Returns:
        A figure of 9.6 x 3.7 inches.

    Raises:
        ValueError: there is no history, or the number of labels is another one.
    """
    if not histories or not all(histories):
        raise ValueError(
            "Expected one or more histories of one or more epochs, got an empty one; train an epoch first."
        )
    if labels is not None and len(labels) != len(histories):
        raise ValueError(f"Expected {len(histories)} labels, one per history, got {len(labels)}; name each history.")
    monitor = str(histories[0][-1].get("monitor") or "test")
    with drawing_style():
        figure = new_figure(9.6, 3.7)
        panels = figure.subplots(1, 2)
        for axes, (title, train_key, key, scale) in zip(panels, _PANELS, strict=True):
            _prepare(axes, title, max(as_number(line.get("epoch")) for history in histories for line in history))
            train = [_curve(history, train_key, scale) for history in histories]
            watched = [_curve(history, key, scale) for history in histories]
            if len(histories) == 1:
                _draw_cuts(axes, histories[0])
            if labels is not None:
                _draw_runs(axes, train, watched, labels, monitor)
            elif len(histories) > 1:
                _draw_seeds(axes, train, watched, monitor)
            else:
                _draw(axes, train[0], SOFT, 1.5)
                _draw(axes, watched[0], BLUE, 1.9)
                _name_ends(axes, [("train", train[0], SOFT), (monitor, watched[0], BLUE)])
            for index, (history, curve) in enumerate(zip(histories, watched, strict=True)):
                color = VERMILION if labels is None else _color(index)
                _draw_best(axes, history, curve, color, named=len(histories) == 1 and key == "accuracy")
        return figure


def _color(index: int) -> str:
    return CYCLE[index % len(CYCLE)]


def _curve(history: History, key: str, scale: float) -> Curve:
    """Epochs and finite values of one key: an epoch without a value is bridged, not drawn as zero."""
    epochs = np.array([as_number(line.get("epoch")) for line in history])
    values = np.array([as_number(line.get(key)) for line in history]) * scale
    known = np.isfinite(epochs) & np.isfinite(values)
    return epochs[known], values[known]


def _prepare(axes: Axes, title: str, last_epoch: float) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, pad=16)
    axes.set_xlabel("epoch")
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    axes.set_xlim(*((1, last_epoch) if last_epoch > 1 else (0.5, 1.5)))


def _draw(axes: Axes, curve: Curve, color: str, width: float, style: str = "-", alpha: float = 1.0) -> None:
    marker = "o" if len(curve[0]) == 1 else None  # one epoch is a point, and a line of one point is invisible
    axes.plot(*curve, color=color, linewidth=width, linestyle=style, alpha=alpha, marker=marker, markersize=4)


def _mean(curves: Sequence[Curve]) -> Curve:
    """The mean over the epochs that all curves have, so that no run's end bends it."""
    shared = sorted(set.intersection(*(set(epochs.tolist()) for epochs, _ in curves)))
    tables = [dict(zip(epochs.tolist(), values.tolist(), strict=True)) for epochs, values in curves]
    return np.array(shared), np.array([np.mean([table[epoch] for table in tables]) for epoch in shared])


def _draw_seeds(axes: Axes, train: Sequence[Curve], watched: Sequence[Curve], monitor: str) -> None:
    for curves, color in ((train, SOFT), (watched, BLUE)):
        for curve in curves:
            _draw(axes, curve, color, 0.8, alpha=0.45)
        _draw(axes, _mean(curves), color, 2.2)
    longest = [max(curves, key=lambda curve: len(curve[0])) for curves in (train, watched)]
    _name_ends(axes, [("train", longest[0], SOFT), (monitor, longest[1], BLUE)])


def _draw_runs(
    axes: Axes, train: Sequence[Curve], watched: Sequence[Curve], labels: Sequence[str], monitor: str
) -> None:
    for index in range(len(labels)):
        color = _color(index)
        _draw(axes, train[index], color, 1.1, style=(0, (4, 2)))  # pyright: ignore[reportArgumentType]
        _draw(axes, watched[index], color, 1.8)
        axes.plot([], [], color=color, linewidth=1.8, label=shorten(labels[index], 28))
    if axes.get_title("left").startswith("Loss"):
        axes.legend(title=f"{monitor}; dashed: train", title_fontsize=8, fontsize=8, alignment="left")


def _name_ends(axes: Axes, ends: Sequence[tuple[str, Curve, str]]) -> None:
    """Writes each curve's name at its right end, in its colour, pushed apart where two ends meet."""
    named = sorted((end for end in ends if len(end[1][0])), key=lambda end: end[1][1][-1])
    low, high = axes.get_ylim()
    previous = -np.inf
    for name, curve, color in named:
        height = max((curve[1][-1] - low) / (high - low), previous + 0.065)
        previous = height
        axes.text(1.025, height, name, color=color, transform=axes.transAxes, va="center", fontweight="bold")


def _draw_cuts(axes: Axes, history: History) -> None:
    """A thin line at each rate cut, and above it the rate from then on, where there is room for the words."""
    left, right = axes.get_xlim()
    free_from = -np.inf
    for index, line in enumerate(history):
        if line.get("event") != "cut":
            continue
        epoch = as_number(line.get("epoch"))
        axes.axvline(epoch, color=SOFT, linewidth=0.7, linestyle=(0, (1, 2)), zorder=1)
        after = rate(history[index + 1].get("learning_rate")) if index + 1 < len(history) else ""
        if epoch >= free_from and after:
            axes.text(epoch, 1.015, after, transform=axes.get_xaxis_transform(), ha="center", fontsize=7, color=SOFT)
            free_from = epoch + (right - left) * 0.075


def _draw_best(axes: Axes, history: History, curve: Curve, color: str, named: bool) -> None:
    epoch, _ = best_of(history)
    where = np.flatnonzero(curve[0] == epoch)
    if not len(where):
        return
    x, y = float(epoch), float(curve[1][where[-1]])
    axes.scatter(
        [x],
        [y],
        s=34 if named else 26,
        color=color,
        edgecolors="white",
        linewidths=0.9,
        zorder=5,
        clip_on=False,
    )
    if named:
        left, right = axes.get_xlim()
        side = "left" if x < left + 0.6 * (right - left) else "right"
        axes.annotate(
            f"best {percent(y / 100)}, epoch {x:.0f}",
            (x, y),
            xytext=(4 if side == "left" else -4, 8),
            textcoords="offset points",
            ha=side,
            fontsize=8,
            color=INK,
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
