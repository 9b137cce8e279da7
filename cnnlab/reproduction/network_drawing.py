"""Networks drawn side by side, layer by layer, in bands of equal map size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cnnlab.report.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    SOFT,
    VERMILION,
    bare_axes,
    drawing_style,
    new_figure,
)

from .cells import millions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# All in inches; a column is: bars of cost, boxes, skip connections.
_LABEL, _BAR, _BOX, _ARC = 0.85, 0.78, 1.5, 0.62
_COLUMN = _BAR + _BOX + _ARC
_ROW, _HEIGHT, _GAP = 0.245, 0.185, 0.13
_HEAD, _FOOT = 0.78, 0.5
_COLORS = (SKY, GREEN, ORANGE, PURPLE, BLUE)  # by width, the narrowest first

Layer = Mapping[str, Any]


def draw_networks(networks: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw networks as columns of boxes.

    A box per layer, in a band with all layers whose output has the same size, so that bands line up; coloured by the
    number of filters. A bar to its left is as long as its multiply-adds; arcs are skip connections, dashed where the
    shape changes.

    Args:
        networks: as `cnnlab.reproduction.figure10.count_network` returns them.
    """
    import matplotlib.patches as patches

    tops, bottom = _bands(networks)
    width, height = _LABEL + _COLUMN * len(networks) + 0.1, bottom + _FOOT
    convs = [layer for network in networks for layer in network["layers"] if layer["kind"] == "conv"]
    colors = dict(zip(sorted({layer["width"] for layer in convs}), _COLORS, strict=False))
    largest = max(layer["multiply_adds"] for layer in convs)
    with drawing_style():
        figure = new_figure(width, height)
        axes = bare_axes(figure)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        for number, (side, (top, rows)) in enumerate(tops.items()):
            if number % 2 == 0:
                band = (0, top - _GAP / 2), width, rows * _ROW + _GAP
                axes.add_patch(patches.Rectangle(*band, facecolor=FAINT, alpha=0.45, linewidth=0))
            axes.text(0.1, top + _ROW / 2, f"{side} × {side}", color=SOFT, va="center")
        axes.text(0.1, _HEAD - 0.26, "map size", color=SOFT, va="center")
        for number, network in enumerate(networks):
            left = _LABEL + _COLUMN * number + _BAR
            _draw_head(axes, network, left)
            middles = _middles(network["layers"], tops)
            _draw_flow(axes, middles, left + _BOX / 2)
            for layer, y in zip(network["layers"], middles, strict=True):
                color = colors.get(layer["width"], SOFT) if layer["kind"] == "conv" else SOFT
                _draw_layer(axes, layer, left, y, color, _BAR * 0.92 * layer["multiply_adds"] / largest)
            for skip in network["skips"]:
                _draw_skip(axes, left + _BOX, middles[skip["from"]], middles[skip["to"]], skip["changes"])
        foot = (
            f"Bars: multiply-adds of a layer, the longest {millions(largest)}. Arcs: skip connections, dashed where "
            "the shape changes; /2: stride 2.\nColours: number of filters. What projections on dashed arcs cost is in "
            "the totals, but not drawn."
        )
        axes.text(0.1, height - _FOOT / 2, foot, color=SOFT, va="center", fontsize=8, linespacing=1.4)
        return figure


def _bands(networks: Sequence[Mapping[str, Any]]) -> tuple[dict[int, tuple[float, int]], float]:
    """Return of each map size, largest first, where its band begins and its number of rows; and where the last ends."""
    rows: dict[int, int] = {}
    for network in networks:
        sides = [layer["side"] for layer in network["layers"]]
        rows |= {side: max(rows.get(side, 0), sides.count(side)) for side in sides}
    top, tops = _HEAD, {}
    for side in sorted(rows, reverse=True):
        tops[side] = top, rows[side]
        top += rows[side] * _ROW + _GAP
    return tops, top


def _middles(layers: Sequence[Layer], tops: Mapping[int, tuple[float, int]]) -> list[float]:
    """Return how far down the middle of each layer's box is."""
    sides = [layer["side"] for layer in layers]
    return [tops[side][0] + (sides[:place].count(side) + 0.5) * _ROW for place, side in enumerate(sides)]


def _draw_head(axes: Axes, network: Mapping[str, Any], left: float) -> None:
    middle = left + _BOX / 2
    axes.text(middle, 0.17, network["title"], fontsize=10.5, fontweight="bold", ha="center", va="center")
    sums = (
        f"{network['weighted_layers']} layers, {millions(network['parameters'])} parameters\n"
        f"{millions(network['multiply_adds'])} multiply-adds"
    )
    axes.text(middle, 0.45, sums, color=SOFT, fontsize=8, ha="center", va="center", linespacing=1.3)


def _draw_flow(axes: Axes, middles: Sequence[float], x: float) -> None:
    for start, end in zip(middles[:-1], middles[1:], strict=True):
        arrow = "-|>" if end - start > _ROW + 0.01 else "-"
        style: dict[str, Any] = dict(
            arrowstyle=arrow, color=SOFT, linewidth=0.8, mutation_scale=7, shrinkA=0, shrinkB=0
        )
        axes.annotate("", (x, end - _HEIGHT / 2), (x, start + _HEIGHT / 2), arrowprops=style)


def _draw_layer(axes: Axes, layer: Layer, left: float, y: float, color: str, cost: float) -> None:
    import matplotlib.patches as patches
    from matplotlib.colors import to_rgba

    pooling = layer["kind"] in ("pool", "mean")
    face = "white" if pooling else to_rgba(color, 0.32)
    box = patches.FancyBboxPatch(
        (left, y - _HEIGHT / 2),
        _BOX,
        _HEIGHT,
        boxstyle="round,pad=0,rounding_size=0.04",
        facecolor="white",
        linewidth=0,
    )
    axes.add_patch(box)  # under a translucent face, so that the band does not shine through
    edge = FAINT if pooling else color
    axes.add_patch(patches.FancyBboxPatch(
        (left, y - _HEIGHT / 2), _BOX, _HEIGHT, boxstyle="round,pad=0,rounding_size=0.04", facecolor=face,
        edgecolor=edge, linewidth=0.8,
    ))  # fmt: skip
    ink = SOFT if pooling else INK
    axes.text(left + _BOX / 2, y, _words(layer), color=ink, fontsize=7.5, ha="center", va="center_baseline")
    if cost:
        bar = (left - 0.05 - cost, y - _HEIGHT / 2 + 0.03), cost, _HEIGHT - 0.06
        axes.add_patch(patches.Rectangle(*bar, facecolor=color, linewidth=0))


def _words(layer: Layer) -> str:
    kind, width = layer["kind"], layer["width"]
    if kind == "conv":
        half = "" if layer["stride"] == 1 else f", /{layer['stride']}"
        return f"{layer['kernel']}×{layer['kernel']} conv, {width}{half}"
    return {"dense": f"dense {width:,}", "pool": "max pool, /2", "mean": "mean of the map"}[kind]


def _draw_skip(axes: Axes, x: float, start: float, end: float, changes: bool) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path

    start, end, bulge = start + 0.035, end - 0.035, x + 0.42
    bow = Path([(x, start), (bulge, start), (bulge, end), (x, end)], [Path.MOVETO, *[Path.CURVE4] * 3])
    axes.add_patch(FancyArrowPatch(
        path=bow, arrowstyle="-|>", mutation_scale=7, color=VERMILION if changes else SOFT, linewidth=1.1,
        linestyle=(0, (2.5, 1.6)) if changes else "-",
    ))  # fmt: skip
