"""How the figures look: one palette, one rc context, one way to save."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any kind of colour vision, and by lightness in print.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY = "#CC79A7", "#56B4E9"
CYCLE = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
INK, SOFT, FAINT = "#1C2024", "#5B6470", "#E3E6EA"

DENSITY = 100  # dots per inch on the page; files hold twice as many

_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same bytes on every machine
    "font.size": 9.0,
    "text.color": INK,
    "text.parse_math": False,  # a class called "$x$" is a name, not a formula
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "legend.frameon": False,
    "figure.dpi": DENSITY,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def drawing_style() -> Iterator[None]:
    """Draws in the report's style, whatever matplotlibrc says, and puts every setting back afterwards."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)  # pyright: ignore[reportCallIssue, reportArgumentType]
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches on an Agg canvas; call inside `drawing_style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DENSITY, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def bare_axes(figure: Figure) -> Axes:
    """One axes without ticks or spines, for pictures that bring their own frame."""
    axes = figure.add_subplot()
    axes.set_axis_off()
    axes.set_aspect("equal", anchor="NW")
    return axes


def tile_columns(count: int, widest: int) -> int:
    """How many columns show `count` tiles in full rows of at most `widest`, as even as can be."""
    return math.ceil(count / math.ceil(count / widest))


def shorten(name: object, length: int) -> str:
    """`name` on one line and at most `length` characters long; an ellipsis stands for what was cut."""
    text = " ".join(str(name).split()).encode("utf-8", "replace").decode("utf-8")  # no lone surrogates
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def save_figure(fig: Figure, path: str | Path) -> Path:
    """Writes a figure as PNG at twice the screen density, with the same bytes each time.

    Args:
        fig: the figure; its size in inches times 200 is the size of the picture in pixels.
        path: where to write; the folder must exist.

    Returns:
        The path.
    """
    path, buffer = Path(path), io.BytesIO()
    with drawing_style(), warnings.catch_warnings():
        # A class name in a script that DejaVu lacks is drawn as boxes; the HTML table still shows it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        fig.savefig(buffer, format="png", dpi=2 * DENSITY, metadata={"Software": None})
    path.write_bytes(buffer.getvalue())
    return path
