"""The result of `architectures.py` as a chart: speed of training over multiply-adds, a panel per size of images."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from architectures_report import describe_run
from measure import BenchmarkError
from name_places import place_names

from cnnlab.report.style import CYCLE, INK, SOFT, drawing_style, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _PANEL = 7.36, 3.5  # inches; the pages of the docs are 736 pixels wide, so text is as large as it says
_COLORS = (*CYCLE, SOFT, INK)
_MARKERS = "osD^v"  # one for each eight families
_EDGE = 1.0  # points
_NAME_SIZE = 8
_CAPTION = (
    "Both axes are logarithmic; k, M, G: thousand, million, billion. "
    "The area of a dot grows with the number of parameters."
)


class _Dot(NamedTuple):
    name: str
    family: str
    image_size: int
    cost: float  # multiply-adds per image, forward
    speed: float  # images per second
    parameters: int

    @property
    def area(self) -> float:
        """In square points."""
        return 18 + 0.75e-6 * self.parameters

    @property
    def radius(self) -> float:
        """In points, edge included."""
        return (self.area**0.5 + _EDGE) / 2


def draw_chart(result: dict[str, Any], path: Path) -> None:
    """Draw the chart of a result as PNG.

    Raises:
        BenchmarkError: nothing was measured.
    """
    save_figure(chart(result), path)


def chart(result: dict[str, Any]) -> Figure:
    """Return training images/s over multiply-adds, the area of a dot its parameters, small and large images apart.

    Raises:
        BenchmarkError: nothing was measured.
    """
    dots = _dots(result)
    if not dots:
        raise BenchmarkError("Expected at least one measured architecture, got none; do measure one.")
    sizes = sorted({dot.image_size for dot in dots})
    looks = _looks(dots)
    with drawing_style():
        figure = new_figure(_WIDTH, 0.8 + _PANEL * len(sizes))
        panels = list(zip(figure.subplots(len(sizes), 1, squeeze=False)[:, 0], sizes, strict=True))
        for axes, size in panels:
            _draw_panel(axes, [dot for dot in dots if dot.image_size == size], looks)
        handles = [_mark(panels[0][0], look, 36, [], []) for look in looks.values()]
        figure.legend(
            handles, list(looks), loc="outside upper left", ncols=8, handletextpad=0.1, columnspacing=1.2, fontsize=8.5
        )
        caption = f"{_CAPTION} {describe_run(result)}"
        caption = textwrap.fill(caption, int(18 * _WIDTH))  # so many letters of this size fit in an inch
        figure.supxlabel(caption, fontsize=7.5, x=0.01, ha="left")
        figure.draw_without_rendering()  # settles the layout
        figure.set_layout_engine("none")
        for axes, size in panels:
            _write_names(axes, [dot for dot in dots if dot.image_size == size])
    return figure


def _dots(result: dict[str, Any]) -> list[_Dot]:
    """What was measured, large dots first, so that none hides a smaller one."""
    found = [
        _Dot(
            name,
            "".join(itertools.takewhile(str.isalpha, name)),  # "resnet" of "resnet18"
            entry["image_size"],
            entry["multiply_adds"],
            entry["cnnlab"]["train_images_per_second"]["median"],
            entry["parameters"],
        )
        for name, entry in result["architectures"].items()
        if "train_images_per_second" in entry.get("cnnlab", {})
    ]
    return sorted(found, key=lambda dot: -dot.parameters)


def _looks(dots: Sequence[_Dot]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each family, the largest family first."""
    count = Counter(dot.family for dot in dots)
    looks = [(color, marker) for marker in _MARKERS for color in _COLORS]
    return dict(zip(sorted(count, key=lambda family: (-count[family], family)), itertools.cycle(looks), strict=False))


def _draw_panel(axes: Axes, dots: Sequence[_Dot], looks: dict[str, tuple[str, str]]) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    size = dots[0].image_size
    axes.set(xscale="log", yscale="log", title=f"Images of {size} x {size} pixels")
    axes.set(xlabel="multiply-adds per image, forward pass", ylabel="training, images per second")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(EngFormatter(sep=" "))
        axis.set_minor_locator(NullLocator())
    axes.grid(True)
    axes.tick_params(labelsize=8)
    axes.margins(x=0.08, y=0.1)
    for dot in dots:
        _mark(axes, looks[dot.family], dot.area, [dot.cost], [dot.speed])


def _mark(axes: Axes, look: tuple[str, str], area: float, x: Sequence[float], y: Sequence[float]) -> Any:
    """Draw a translucent dot with an edge, so that one shows under another."""
    from matplotlib.colors import to_rgba

    color, marker = look
    return axes.scatter(x, y, s=area, marker=marker, facecolor=to_rgba(color, 0.45), edgecolor=color, lw=_EDGE)


def _write_names(axes: Axes, dots: Sequence[_Dot]) -> None:
    """Write the names of the dots, with a line where a name is not beside its dot."""
    places = [(dot.cost, dot.speed) for dot in dots]
    points = 72 / axes.figure.dpi  # a pixel
    texts = [axes.text(0, 0, dot.name, fontsize=_NAME_SIZE) for dot in dots]
    sizes = points * np.array([text.get_window_extent().size for text in texts])
    for text in texts:
        text.remove()
    at = points * axes.transData.transform(places)
    frame = points * np.array(axes.bbox.min), points * np.array(axes.bbox.max)
    found = place_names(at, np.array([dot.radius for dot in dots]), sizes, frame)
    for index, dot in enumerate(dots):
        middle = found.middles[index]
        touch = (found.starts[index] - middle) / sizes[index] + 0.5
        line = dict(arrowstyle="-", color=SOFT, lw=0.6, shrinkA=0, shrinkB=0, patchA=None, relpos=tuple(touch))
        axes.annotate(
            dot.name,
            places[index],
            xytext=tuple(middle - at[index]),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=_NAME_SIZE,
            arrowprops=line if found.lines[index] else None,
        )
