"""Networks as points: accuracy against what they cost, with names that do not lie on each other."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cnnlab.report.style import CYCLE, FAINT, INK, SOFT, drawing_style, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

_MARKER = 7.0  # points
# Where a name may stand: (x, y) in points from the middle of the marker, and its alignment. The first that covers
# least wins; those at a distance get a line to the marker.
_NEAR = 7
_CLOSE = [(_NEAR, 0, "left"), (-_NEAR, 0, "right"), (0, 9, "center"), (0, -9, "center")]
_DISTANT = [
    (side * x, up * y, "left" if side > 0 else "right")
    for y in (12, 20, 28)
    for x in (5, 14)
    for side in (-1, 1)
    for up in (1, -1)
]
_ACCURACIES = (*range(0, 86, 5), 88, 90, 92, 94, 95, 96, 97, 98, 99)
_UNITS = ((1e9, " G"), (1e6, " M"), (1e3, " k"))


class Point(NamedTuple):
    """A network.

    Attributes:
        name: written beside it.
        kind: decides the colour.
        costs: where it is in each panel, positive.
        accuracies: how high, in percent, one per run.
    """

    name: str
    kind: str
    costs: Sequence[float]
    accuracies: Sequence[float]


def draw_map(points: Sequence[Point], costs: Sequence[str], label: str) -> Figure:
    """Draw a panel per kind of cost: a dot at the mean accuracy, a bar of a standard deviation each way.

    Costs are on logarithmic axes, accuracies on one that is logarithmic in the error, which spreads good networks.

    Args:
        points: the networks, at least one.
        costs: names of the costs.
        label: of the upright axis.
    """
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

    colors = dict(zip(dict.fromkeys(point.kind for point in points), [*CYCLE, SOFT], strict=False))
    with drawing_style():
        figure = new_figure(4.3 * len(costs), 4.8)
        panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        for number, (axes, cost) in enumerate(zip(panels, costs, strict=True)):
            for point in points:
                sd = statistics.stdev(point.accuracies) if len(point.accuracies) > 1 else 0.0
                place = [point.costs[number]], [statistics.fmean(point.accuracies)]
                color = colors.get(point.kind, SOFT)
                axes.errorbar(*place, yerr=[sd], fmt="o", color=color, markersize=_MARKER, elinewidth=1.3)
            axes.set_xscale("log")
            axes.set_yscale("function", functions=(_stretched, _accuracy))
            axes.xaxis.set_major_locator(FixedLocator(_round_numbers([point.costs[number] for point in points])))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(_with_unit))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_locator(FixedLocator(_ACCURACIES))
            axes.set_xlabel(cost)
            axes.grid(color=FAINT)
            axes.margins(x=0.2, y=0.14)
        panels[0].set_ylabel(label)
        for kind, color in colors.items():
            panels[0].plot([], [], "o", color=color, markersize=_MARKER, label=kind)
        figure.legend(loc="outside upper left", ncols=len(colors), handletextpad=0.1)
        figure.draw_without_rendering()  # settles where everything is
        for number, axes in enumerate(panels):
            _write_names(axes, points, number)
        return figure


def _stretched(accuracy: Any) -> Any:
    return -np.log10(np.maximum(100 - np.asarray(accuracy, float), 1e-3))


def _accuracy(stretched: Any) -> Any:
    return 100 - 10 ** -np.asarray(stretched, float)


def _round_numbers(values: Sequence[float]) -> list[float]:
    """Return ticks for an axis: powers of ten, with twice and five times them where the values span little."""
    low, high = np.log10(min(values)), np.log10(max(values))
    steps = (1, 2, 5) if high - low < 2 else (1,)
    return [step * 10.0**power for power in range(int(low) - 2, int(high) + 3) for step in steps]


def _with_unit(value: float, position: int | None = None) -> str:
    size, unit = next((pair for pair in _UNITS if value >= pair[0]), (1.0, ""))
    return f"{value / size:g}{unit}"


def _write_names(axes: Axes, points: Sequence[Point], number: int) -> None:
    """Write every name near its marker, at the place that covers least; the most crowded choose first."""
    from matplotlib.transforms import Bbox

    where = [(point.costs[number], statistics.fmean(point.accuracies)) for point in points]
    dots = axes.transData.transform(where)  # [n, 2], in dots of the screen
    half = _MARKER * axes.figure.dpi / 72 / 2
    markers = [Bbox.from_extents(*(dot - half), *(dot + half)) for dot in dots]
    names: list[Bbox] = []
    crowd = [sum(abs(x - a) < 90 and abs(y - b) < 30 for a, b in dots) for x, y in dots]
    for index in sorted(range(len(points)), key=lambda index: -crowd[index]):
        style: dict[str, Any] = dict(textcoords="offset points", fontsize=8, color=INK, va="center")
        text = axes.annotate(points[index].name, where[index], xytext=(0, 0), **style)
        taken = [*names, *markers[:index], *markers[index + 1 :]]

        def covered(place: tuple[float, float, str], text: Any = text, taken: list[Bbox] = taken) -> float:
            text.set(position=place[:2], horizontalalignment=place[2])
            box = text.get_window_extent().padded(1)
            return sum(_overlap(box, other) for other in taken) + 100 * _outside(box, axes.bbox)

        x, y, side = min([*_CLOSE, *_DISTANT], key=covered)
        text.remove()
        line = dict(arrowstyle="-", color=SOFT, linewidth=0.6, shrinkA=0, shrinkB=_MARKER / 2)
        style |= {"ha": side, "arrowprops": line if (x, y, side) in _DISTANT else None}
        text = axes.annotate(points[index].name, where[index], xytext=(x, y), **style)
        text.set_in_layout(False)
        names.append(text.get_window_extent())


def _overlap(box: Bbox, other: Bbox) -> float:
    width = min(box.x1, other.x1) - max(box.x0, other.x0)
    height = min(box.y1, other.y1) - max(box.y0, other.y0)
    return max(width, 0.0) * max(height, 0.0)


def _outside(box: Bbox, frame: Bbox) -> float:
    sides = (frame.x0 - box.x0, box.x1 - frame.x1, frame.y0 - box.y0, box.y1 - frame.y1)
    return sum(max(side, 0.0) for side in sides)
