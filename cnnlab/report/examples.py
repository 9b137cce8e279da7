"""A gallery of predictions: what the network saw and what it said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .style import INK, SOFT, bare_axes, drawing_style, new_figure, shorten, tile_columns
from .words import percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = 24
_WRONG = "#B34700"  # vermilion, dark enough for small type
_ONE_LINE = 19  # characters below a tile
_STEP = (1.14, 1.52)  # from tile to tile, in tiles: room for words below


@dataclass(frozen=True)
class Example:
    """One image, its class and what the network took it for.

    Args:
        image: uint8, `[height, width, channels]` with one or three channels.
        label: name of the true class.
        predicted: name of the predicted class.
        confidence: probability of the prediction, 0..1.
    """

    image: np.ndarray
    label: str
    predicted: str
    confidence: float


def plot_examples(examples: Sequence[Example]) -> Figure:
    """Images with "true class → predicted class" and the confidence below each.

    Args:
        examples: one or more; the first 24 are drawn.

    Returns:
        A figure.

    Raises:
        ValueError: there is none, or an image is not uint8 `[height, width, 1 or 3]`.
    """
    if not examples:
        raise ValueError("Expected one or more examples, got none; leave the figure out instead.")
    shown = list(examples)[:_SHOWN]
    columns = tile_columns(len(shown), 6)
    rows = math.ceil(len(shown) / columns)
    names = [f"{shorten(one.label, 22)} → {shorten(one.predicted, 22)}" for one in shown]
    long = max(map(len, names)) > _ONE_LINE
    if long:
        names = [name.replace(" → ", " →\n", 1) for name in names]
    tile = 1.35  # inches
    with drawing_style():
        width, height = (columns - 1) * _STEP[0] + 1, (rows - 1) * _STEP[1] + 1.4
        figure = new_figure(width * tile + 0.1, height * tile + 0.1)
        axes = bare_axes(figure)
        for index, example in enumerate(shown):
            left, top = (index % columns) * _STEP[0], -(index // columns) * _STEP[1]
            picture = _displayable(example.image)
            high, wide = (side / max(picture.shape[:2]) for side in picture.shape[:2])  # keeps the proportions
            x, y = left + (1 - wide) / 2, top - (1 + high) / 2
            axes.imshow(picture, extent=(x, x + wide, y, y + high), cmap="gray", vmin=0, vmax=255)
            color = INK if example.label == example.predicted else _WRONG
            axes.text(left, top - 1.05, names[index], va="top", fontsize=8 - 2 * long, color=color)
            sure = percent(example.confidence, 0)
            axes.text(left, top - (1.27 if long else 1.19), sure, va="top", fontsize=7, color=SOFT)
        axes.set_xlim(-0.02, width + 0.02)
        axes.set_ylim(-height, 0.02)
        return figure


def _displayable(image: np.ndarray) -> np.ndarray:
    """The image as matplotlib wants it: [h, w, 3] or [h, w]."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(
            "Expected a uint8 image of shape [height, width, 1 or 3], "
            f"got {image.dtype} {list(image.shape)}; pass the image as the data set holds it."
        )
    return image[..., 0] if image.shape[2] == 1 else image
