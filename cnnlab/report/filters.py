"""What the first convolution looks for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from .style import FAINT, SOFT, bare_axes, drawing_style, new_figure, tile_columns
from .words import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 96
_GAP = 0.12  # between tiles, in tiles


def plot_filters(kernels: np.ndarray) -> Figure:
    """The filters of a first convolution, each scaled to its own largest weight.

    Three input channels are shown as red, green and blue, where mid grey is zero. Any other number is
    averaged over the channels and shown from blue (negative) over white (zero) to red (positive).

    Args:
        kernels: weights, `[height, width, channels in, channels out]`; the first 96 filters are drawn.

    Returns:
        A figure.

    Raises:
        ValueError: the array has another rank or no filters.
    """
    kernels = np.asarray(kernels, dtype=np.float32)  # [h, w, cin, cout]
    if kernels.ndim != 4 or 0 in kernels.shape:
        raise ValueError(
            "Expected kernels of shape [height, width, channels in, channels out], "
            f"got {list(kernels.shape)}; pass the kernel of a convolution."
        )
    total, coloured = kernels.shape[3], kernels.shape[2] == 3
    tiles = np.moveaxis(kernels[..., :_SHOWN], 3, 0)  # [n, h, w, cin]
    tiles = np.nan_to_num(tiles, posinf=0.0, neginf=0.0) if coloured else np.nan_to_num(tiles).mean(axis=3)
    scale = np.abs(tiles).reshape(len(tiles), -1).max(axis=1)
    tiles = tiles / np.where(scale > 0, scale, 1.0).reshape(-1, *[1] * (tiles.ndim - 1))  # -1..1
    columns = tile_columns(len(tiles), 8 if len(tiles) <= 32 else 16)
    rows = math.ceil(len(tiles) / columns)
    tile = min(1.1, 9.0 / (columns * (1 + _GAP)))  # inches
    with drawing_style():
        width, height = (tile * (side * (1 + _GAP) - _GAP) for side in (columns, rows))
        figure = new_figure(max(width + 0.2, 4.0), height + 0.35)
        axes = bare_axes(figure)
        for index, weights in enumerate(tiles):
            left, top = (index % columns) * (1 + _GAP), -(index // columns) * (1 + _GAP)
            picture = (weights + 1) / 2 if coloured else weights
            axes.imshow(
                picture,
                extent=(left, left + 1, top - 1, top),
                cmap="RdBu_r",
                vmin=-1,
                vmax=1,
                interpolation="nearest",
            )
            axes.plot(
                [left, left + 1, left + 1, left, left],
                [top, top, top - 1, top - 1, top],
                color=FAINT,
                linewidth=0.8,
            )
        axes.set_xlim(-0.02, columns * (1 + _GAP) - _GAP + 0.02)
        axes.set_ylim(-(rows * (1 + _GAP) - _GAP) - 0.02, 0.02)
        which = plural(total, "filter") if total <= _SHOWN else f"The first {_SHOWN} of {total} filters"
        mean = "" if kernels.shape[2] == 1 else "mean over channels, "
        zero = "mid grey is zero" if coloured else f"{mean}blue below zero, red above"
        axes.set_title(f"{which}; {zero}", fontsize=8, fontweight="normal", color=SOFT)
        return figure
