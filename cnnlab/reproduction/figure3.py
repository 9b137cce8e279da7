"""Figure 3: linear against sigmoid activations on data that no line separates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlab.data import Dataset, Split, dataset_from_arrays
from cnnlab.experiment import load
from cnnlab.report.style import BLUE, VERMILION, drawing_style, new_figure
from cnnlab.training import Recipe

from .comparison import OPEN, enough, judged_cell, later_seeds, settle
from .errors import row_cell
from .results import Results, RowResults
from .study import Row, Study, Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRAIN, _TEST = 1200, 500
_SIDE = 64  # grid points along an axis
_DIRECTIONS = 1440  # one every quarter of a degree
_FITS = 0.97
_SLACK = 0.02  # about the standard error of an accuracy of 65 % on 500 points

_RECIPE = Recipe(
    name="figure3",
    source="cnnlab; 200 of the 1,200 training points choose the best epoch",
    result="measured in docs/reproduction.md",
    epochs=100,
    batch_size=50,
    optimizer="adamw",
    learning_rate=0.03,
    schedule="cosine",
    standardize=True,
    held_out=200,
    target_accuracy=2.0,  # never: every run has the whole schedule
)


def rings() -> Dataset:
    """Return points in the plane: a disc of one class, and around it, with a gap, a ring of the other.

    A point is an image of one pixel, `[1, 1, 3]`: red is x, green is y, blue is nothing. The two classes have equally
    many points. The disc has half the radius of the ring's outer edge, the ring's inner edge 0.7 of it.
    """
    rng = np.random.default_rng(3)
    return dataset_from_arrays(*_points(_TRAIN, rng), *_points(_TEST, rng), classes=["disc", "ring"], name="rings")


def _points(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(n) % 2
    radius = np.where(labels == 0, rng.uniform(0.0, 0.5, n), rng.uniform(0.7, 1.0, n))
    angle = rng.uniform(0.0, 2 * np.pi, n)
    plane = 127.5 + 120 * radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # [n, 2]
    return _images(np.rint(plane)), labels


def _images(plane: np.ndarray) -> np.ndarray:
    """Points `[n, 2]` from 0 to 255 as images `[n, 1, 1, 3]`."""
    return np.pad(plane, ((0, 0), (0, 1))).astype(np.uint8)[:, None, None, :]


_SEEN = 5  # seeds of the linear rows, when the rule of `_judge_linear` was written


def _row(name: str, what: str, activation: str, hidden: Sequence[int], seen: int = _SEEN) -> Row:
    options = {"activation": activation, "hidden": list(hidden)}
    return Row(name, what, "mlp", _RECIPE, seeds=10, seen=seen, options=options, data=rings)


_ROWS = (
    _row("linear", "two hidden layers of 8, linear activation", "linear", [8, 8]),
    _row("sigmoid", "two hidden layers of 8, sigmoid activation", "sigmoid", [8, 8], seen=0),
    _row("linear-deep", "six hidden layers of 8, linear activation", "linear", [8] * 6),
    _row("no-hidden", "no hidden layer", "linear", []),
)
_LINEAR = ("linear", "linear-deep", "no-hidden")


class Figure3(Study):
    """Decision regions of networks that differ in their activation, on a disc within a ring."""

    name = "figure3"
    title = "Figure 3: linear and sigmoid activations"
    claim = (
        "A network with linear activations is one linear map, however deep, and draws one straight line; "
        "the same network with sigmoids separates what no line does."
    )
    source = "M. N. Careddu, 'Convolutional Neural Network: studio e applicazione in Julia', chapter 1, figure 3"
    shortened = "two seeds instead of ten"
    quick_minutes = 1.0
    full_time = "40 runs, about a minute on two CPU cores"
    figures = {"regions": "Decision regions of one network of each row, that of the first seed, with the test points"}

    def rows(self, results: Results) -> Sequence[Row]:
        """Return four rows that differ in activation and depth."""
        return [replace(row, seeds=2, seen=0) for row in _ROWS] if results.quick else list(_ROWS)

    def inspect(self, folder: Path) -> dict[str, Any]:
        """Return what the best network of a run makes of a grid.

        Returns:
            `regions`: a string of classes per line of the grid, from small y to large; `straight`: whether one straight
            line bounds them.
        """
        grid = _regions(folder)
        return {"regions": ["".join(map(str, line)) for line in grid], "straight": _is_straight(grid)}

    def measure(self, results: Results) -> dict[str, Any]:
        """Return the test points, and how well a straight line does.

        Returns:
            `points`: the test points; `best_line`: the accuracy on them of the line that is best on the training
            points.
        """
        data = rings()
        (plane, labels), (test, truth) = (_in_the_plane(split) for split in (data.train, data.test))
        weights, bias = best_line(plane, labels)
        accuracy = float(np.mean((test @ weights + bias > 0) == truth))
        points = {"x": test[:, 0].tolist(), "y": test[:, 1].tolist(), "label": truth.tolist()}
        return {"best_line": accuracy, "points": points}

    def table(self, results: Results) -> Table:
        """Return a line per row: accuracy, and whether a straight line bounds the regions; the best line below."""
        head = ("row", "network", "test accuracy (n)", "one straight line (networks)")
        lines = [[row.row, row.what, row_cell(row, _tested(row)), _counted(row)] for row in results.rows.values()]
        if lines and "best_line" in results.measured:
            best = f"{100 * results.measured['best_line']:.2f} %"
            lines.append(["-", "the straight line that is best on the training points", best, "-"])
        return head, lines

    def verdicts(self, results: Results) -> Sequence[Verdict]:
        """Judge that sigmoids fit the points, that linear activations do not, and that the latter draw a line."""
        return [_judge_sigmoid(results), _judge_linear(results), _judge_lines(results)]

    def draw(self, results: Results) -> dict[str, Figure]:
        """Return the regions of the rows side by side."""
        panels = [(row, found[0]["regions"]) for row in results.finished() if (found := _found(row))]
        points = results.measured.get("points")
        return {"regions": _draw_regions(panels, points)} if panels and points else {}


def best_line(plane: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the straight line that has most points on their right side.

    Every threshold in 1,440 directions is tried; a line between two of these directions differs by few points.

    Args:
        plane: points, `[n, 2]`.
        labels: 0 or 1, `[n]`.

    Returns:
        w, `[2]`, and b: class 1 is where w . p + b > 0.
    """
    angles = np.linspace(0.0, 2 * np.pi, _DIRECTIONS, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)])  # [2, directions]
    along = plane @ directions  # [n, directions]
    order = np.argsort(along, axis=0)
    along = np.take_along_axis(along, order, axis=0)
    along = np.concatenate([along[:1] - 2, along, along[-1:] + 2])  # [n + 2, directions]; lines lie halfway between
    ones = np.concatenate([np.zeros((1, _DIRECTIONS), int), np.cumsum(labels[order], axis=0)])  # below each line
    right = np.arange(len(labels) + 1)[:, None] - ones + (labels.sum() - ones)  # class 0 below, class 1 above
    right[np.diff(along, axis=0) < 1e-9] = -1  # no line between points that lie equally high
    place, direction = np.unravel_index(right.argmax(), right.shape)
    return directions[:, direction], -float(along[place, direction] + along[place + 1, direction]) / 2


def _in_the_plane(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Return the points of a split, `[n, 2]`, and their labels, `[n]`."""
    return split.images[:, 0, 0, :2].astype(int), split.labels


def _regions(folder: Path) -> np.ndarray:
    """Return the classes that the network of a run gives the grid, `[side, side]`, y first."""
    from cnnlab.evaluation.evaluate import compute_logits

    logits = compute_logits(load(folder), _images(_grid()), batch_size=_SIDE**2)  # [side * side, 2]
    return logits.argmax(axis=-1).reshape(_SIDE, _SIDE)


def _grid() -> np.ndarray:
    """The middles of the cells of the grid, `[side * side, 2]`, in lines of equal y."""
    middles = (np.arange(_SIDE) + 0.5) * (256 / _SIDE)
    x, y = np.meshgrid(middles, middles)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def _is_straight(grid: np.ndarray) -> bool:
    """Whether a straight line separates the two classes of a grid `[side, side]`, or there is one class only.

    Finds out whether some w, b satisfy s (w . p + b) >= 1 for every point p with sign s: a linear program.
    """
    from scipy.optimize import linprog

    y, x = np.indices(grid.shape)
    signs = np.where(grid.ravel() == 0, 1.0, -1.0)
    points = np.stack([x.ravel(), y.ravel(), np.ones(grid.size)], axis=1)  # [side * side, 3]
    found = linprog(np.zeros(3), -signs[:, None] * points, -np.ones(grid.size), bounds=(None, None))
    return found.status == 0


def _tested(row: RowResults) -> list[float]:
    return row.values("test_accuracy")


def _found(row: RowResults) -> list[dict[str, Any]]:
    """Return what was found out about the runs that have not diverged."""
    return [found for run in row.runs if (found := run.get("found"))]


def _straight(row: RowResults) -> list[bool]:
    return [found["straight"] for found in _found(row)]


def _counted(row: RowResults) -> str:
    lines = _straight(row)
    return f"{sum(lines)} of {len(lines)}" if lines else "-"


def _judge_sigmoid(results: Results) -> Verdict:
    claim = "The network with sigmoids separates the disc from the ring."
    rule = f"the mean test accuracy of `sigmoid` is at least 97 %; undecided {OPEN}"
    (row,) = results.finished("sigmoid") or [None]
    if row is None:
        return Verdict(claim, rule)
    held = row.mean("test_accuracy") >= _FITS if enough(results, row, _tested(row)) else None
    return settle(results, claim, rule, row_cell(row, _tested(row)), held)


def _judge_linear(results: Results) -> Verdict:
    claim = "Networks with linear activations separate them no better than a straight line, however deep."
    rule = (
        f"the mean test accuracy of no such row{later_seeds(results, _SEEN)} is more than {100 * _SLACK:g} points "
        f"above that of the straight line that is best on the training points; undecided {OPEN}"
    )
    rows, line = results.finished(*_LINEAR), results.measured.get("best_line")
    if len(rows) < len(_LINEAR) or line is None:
        return Verdict(claim, rule)
    cells = [f"{row.row} {judged_cell(row, _tested)}" for row in rows]
    measured, held = f"{', '.join(cells)}; the line {100 * line:.2f} %", None
    if all(enough(results, row, _tested(row)) for row in rows):
        held = max(row.judged.mean("test_accuracy") for row in rows) <= line + _SLACK
    return settle(results, claim, rule, measured, held)


def _judge_lines(results: Results) -> Verdict:
    """Judge in every version: one network that bends its line is enough to refute."""
    claim = "What a network with linear activations draws is one straight line."
    rule = (
        f"on a grid of {_SIDE} x {_SIDE} points, a straight line has the classes of every such network on its two "
        "sides, exactly, and those of no network of `sigmoid`"
    )
    rows = results.finished(*_LINEAR, "sigmoid")
    lines = [line for row in rows if row.row in _LINEAR for line in _straight(row)]
    curves = [line for row in rows if row.row not in _LINEAR for line in _straight(row)]
    if not lines:
        return Verdict(claim, rule)
    measured = f"straight: {sum(lines)} of {len(lines)} linear networks, {sum(curves)} of {len(curves)} with sigmoids"
    held = all(lines) and not any(curves)
    whole = len(rows) > len(_LINEAR) and all(enough(results, row, _straight(row)) for row in rows)
    unsure = not whole or (results.epochs is not None and any(curves))
    return Verdict.of(claim, rule, measured, None if unsure and all(lines) else held)


def _draw_regions(panels: Sequence[tuple[RowResults, list[str]]], points: Mapping[str, Any]) -> Figure:
    from matplotlib.colors import ListedColormap

    x, y, label = (np.array(points[key]) for key in ("x", "y", "label"))
    with drawing_style():
        figure = new_figure(2.9 * len(panels), 3.4)
        for axes, (row, regions) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            grid = np.array([[int(digit) for digit in line] for line in regions])
            axes.imshow(grid, origin="lower", extent=(0, 256, 0, 256), cmap=ListedColormap([BLUE, VERMILION]), vmin=0,
                        vmax=1, alpha=0.25, interpolation="nearest")  # fmt: skip
            for number, color in enumerate((BLUE, VERMILION)):
                axes.plot(x[label == number], y[label == number], ".", color=color, markersize=3)
            axes.set_title(row.row)
            axes.set_xlabel(f"test accuracy, mean (n seeds):\n{row_cell(row, _tested(row))}")
            axes.set_xticks([])
            axes.set_yticks([])
        return figure
