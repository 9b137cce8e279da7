"""Figure 3: linear against sigmoid activations on data that no line separates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cnnlab.data import Dataset, dataset_from_arrays
from cnnlab.experiment import how_diverged, load
from cnnlab.report.style import BLUE, VERMILION, drawing_style, new_figure
from cnnlab.training import Recipe, RunFolder

from .cells import percent
from .results import Results, RowResults
from .study import Row, Study, Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TRAIN, _TEST = 1200, 500
_SIDE = 64  # grid points along an axis
_DIRECTIONS = 1440  # a line every eighth of a degree
_FITS, _TOLERANCE = 0.97, 0.01

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


def _row(name: str, what: str, activation: str, hidden: Sequence[int]) -> Row:
    return Row(name, what, "mlp", _RECIPE, 5, {"activation": activation, "hidden": list(hidden)}, rings)


_ROWS = (
    _row("linear", "two hidden layers of 8, linear activation", "linear", [8, 8]),
    _row("sigmoid", "two hidden layers of 8, sigmoid activation", "sigmoid", [8, 8]),
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
    shortened = "two seeds instead of five"
    quick_minutes = 1.0
    full_time = "20 runs, 2 minutes on one CPU core"
    figures = {"regions": "Decision regions of a network of each row, with the test points"}

    def rows(self, results: Results) -> Sequence[Row]:
        """Return four rows that differ in activation and depth."""
        return [replace(row, seeds=2) for row in _ROWS] if results.quick else list(_ROWS)

    def measure(self, results: Results, folders: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
        """Return the regions of a network of each row, and of each whether one straight line bounds them.

        Returns:
            `regions`: of each row a string of classes per line of the grid, from small y to large; `straight`: of each
            row and seed, by the name of its folder; `best_line`: the accuracy of the best straight line on the test
            points; `points`: these.
        """
        regions = dict(results.measured.get("regions", {}))
        straight = {row: dict(seeds) for row, seeds in results.measured.get("straight", {}).items()}
        for row, paths in folders.items():
            found = {path.name: _regions(path) for path in paths if how_diverged(RunFolder.open(path)) is None}
            if found:
                regions[row] = ["".join(map(str, line)) for line in next(iter(found.values()))]
                straight[row] = {**straight.get(row, {}), **{name: _is_straight(grid) for name, grid in found.items()}}
        if not regions:
            return {}
        test = rings().test
        plane = test.images[:, 0, 0, :2].astype(int)  # [n, 2]
        points = {"x": plane[:, 0].tolist(), "y": plane[:, 1].tolist(), "label": test.labels.tolist()}
        best = best_line_accuracy(plane, test.labels)
        return {"regions": regions, "straight": straight, "best_line": best, "points": points}

    def table(self, results: Results) -> Table:
        """Return a line per row: accuracy, and whether a straight line bounds the regions; the best line below."""
        head = ("row", "network", "test accuracy (n)", "one straight line (networks)")
        lines = [[row.row, row.what, percent(row.values("test_accuracy")), _counted(row, results)]
                 for row in results.rows.values()]  # fmt: skip
        if "best_line" in results.measured:
            best = f"{100 * results.measured['best_line']:.2f} %"
            lines.append(["-", "the best straight line, searched on the test points", best, "-"])
        return head, lines

    def verdicts(self, results: Results) -> Sequence[Verdict]:
        """Judge that sigmoids fit the points, that linear activations do not, and that the latter draw a line."""
        return [_judge_sigmoid(results), _judge_linear(results), _judge_lines(results)]

    def draw(self, results: Results) -> dict[str, Figure]:
        """Return the regions of the rows side by side."""
        rows = [row for row in results.finished() if row.row in results.measured.get("regions", {})]
        return {"regions": _draw_regions(rows, results.measured)} if rows else {}


def best_line_accuracy(plane: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of points that the best straight line has on their right side.

    Every threshold in 1,440 directions is tried; a line between two of these directions differs by few points.

    Args:
        plane: points, `[n, 2]`.
        labels: 0 or 1, `[n]`.
    """
    angles = np.linspace(0.0, np.pi, _DIRECTIONS, endpoint=False)
    along = plane @ np.stack([np.cos(angles), np.sin(angles)])  # [n, directions]
    ones = np.cumsum(labels[np.argsort(along, axis=0)], axis=0)  # [n, directions]: of the first points in a direction
    right = np.arange(1, len(labels) + 1)[:, None] - ones + (labels.sum() - ones)  # class 0 below, class 1 above
    return float(np.maximum(right, len(labels) - right).max() / len(labels))


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


def _judge_sigmoid(results: Results) -> Verdict:
    claim = "The network with sigmoids separates the disc from the ring."
    rule = "the mean test accuracy of `sigmoid` is at least 97 %"
    (row,) = results.finished("sigmoid") or [None]
    if row is None:
        return Verdict(claim, rule)
    held = bool(row.mean("test_accuracy") >= _FITS)
    if not row.complete or (results.epochs is not None and not held):
        held = None
    return Verdict.of(claim, rule, percent(row.values("test_accuracy")), held)


def _judge_linear(results: Results) -> Verdict:
    claim = "Networks with linear activations do not separate them better than a straight line, however deep."
    rule = "none is right on more test points than the best straight line plus one percentage point"
    rows, best = results.finished(*_LINEAR), results.measured.get("best_line")
    values = [value for row in rows for value in row.values("test_accuracy")]
    if not values or best is None:
        return Verdict(claim, rule)
    measured = f"at most {100 * max(values):.2f} % (n = {len(values)}), the best line {100 * best:.2f} %"
    held = max(values) <= best + _TOLERANCE
    return Verdict.of(claim, rule, measured, held if results.complete(*_LINEAR) or not held else None)


def _judge_lines(results: Results) -> Verdict:
    claim = "What a network with linear activations draws is one straight line."
    rule = (
        f"on a grid of {_SIDE} x {_SIDE} points, a straight line has the classes of every such network on its two "
        "sides, exactly, and those of no network of `sigmoid`"
    )
    straight = results.measured.get("straight", {})
    lines = [found for row in results.finished(*_LINEAR) for found in straight.get(row.row, {}).values()]
    curves = [found for row in results.finished("sigmoid") for found in straight.get(row.row, {}).values()]
    if not lines:
        return Verdict(claim, rule)
    measured = f"straight: {sum(lines)} of {len(lines)} linear networks, {sum(curves)} of {len(curves)} with sigmoids"
    held = all(lines) and not any(curves)
    unsure = not results.complete(*_LINEAR, "sigmoid") or (results.epochs is not None and any(curves))
    return Verdict.of(claim, rule, measured, None if unsure and all(lines) else held)


def _counted(row: RowResults, results: Results) -> str:
    found = list(results.measured.get("straight", {}).get(row.row, {}).values())
    return f"{sum(found)} of {len(found)}" if row.runs and found else "-"


def _draw_regions(rows: Sequence[RowResults], measured: Mapping[str, Any]) -> Figure:
    from matplotlib.colors import ListedColormap

    x, y, label = (np.array(measured["points"][key]) for key in ("x", "y", "label"))
    with drawing_style():
        figure = new_figure(2.9 * len(rows), 3.2)
        for axes, row in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
            grid = np.array([[int(digit) for digit in line] for line in measured["regions"][row.row]])
            axes.imshow(grid, origin="lower", extent=(0, 256, 0, 256), cmap=ListedColormap([BLUE, VERMILION]), vmin=0,
                        vmax=1, alpha=0.25, interpolation="nearest")  # fmt: skip
            for number, color in enumerate((BLUE, VERMILION)):
                axes.plot(x[label == number], y[label == number], ".", color=color, markersize=3)
            axes.set_title(row.row)
            axes.set_xlabel(percent(row.values("test_accuracy")))
            axes.set_xticks([])
            axes.set_yticks([])
        return figure
