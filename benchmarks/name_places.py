"""Places for the names of dots in a chart: near their dots, clear of all dots, of other names and of their lines."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_ANGLES = np.arange(24) * (2 * np.pi / 24)
_GAPS = np.array([3.0, 7, 12, 18, 26, 36, 48, 62, 80])  # from the edge of the dot to the name
_CLEAR = 1.5  # kept free around a name
_BESIDE = 6.0  # a name farther from its dot has a line to it
_UNSURE = 3.0  # so has one that is not nearer to its dot by this much than to another
_TRIES = 8  # orders in which the names choose
# What the search minimises: the distance of names from dots, a little for names not to the right, this for each fault.
_CLASH, _LINE_OVER_DOT, _LINE = 1000.0, 25.0, 3.0
_NEARER, _AWAY = 2.0, 7.0  # for each point by which another dot is not farther off than its own and `_AWAY`


class Places(NamedTuple):
    """Where names stand.

    Attributes:
        middles: of the names, [n, 2].
        starts: of the lines, on the edges of the names, [n, 2]; they end in the middles of the dots.
        lines: whether a name needs its line, [n].
    """

    middles: Array
    starts: Array
    lines: NDArray[np.bool_]


class _Options(NamedTuple):
    """The k places that each of n names may choose from; `cost` is without the other names."""

    middles: Array  # [n, k, 2]
    low: Array  # [n, k, 2], lower left corners, with the room around
    high: Array  # [n, k, 2]
    starts: Array  # [n, k, 2]
    lines: NDArray[np.bool_]  # [n, k]
    cost: Array  # [n, k]


def place_names(dots: Array, radii: Array, sizes: Array, frame: tuple[Array, Array]) -> Places:
    """Return the places that a search over directions and distances finds best; the same ones each time.

    The names choose one after the other, and again until none gains by another place, in several random orders.

    Args:
        dots: middles of the dots, [n, 2], in points, as is everything here.
        radii: of the dots, [n].
        sizes: widths and heights of the names, [n, 2].
        frame: lower left and upper right corner of the area that names may use.
    """
    options = _options(dots, radii, sizes, frame)
    rng = np.random.default_rng(0)
    found = [_settle(options, dots, rng.permutation(len(dots))) for _ in range(_TRIES)]
    best = np.arange(len(dots)), min(found, key=lambda pair: pair[1])[0]
    return Places(options.middles[best], options.starts[best], options.lines[best])


def _options(dots: Array, radii: Array, sizes: Array, frame: tuple[Array, Array]) -> _Options:
    angle, gap = (grid.ravel() for grid in np.meshgrid(_ANGLES, _GAPS))
    toward = np.stack([np.cos(angle), np.sin(angle)], axis=-1)  # [k, 2]
    away = toward * (radii[:, None] + gap)[..., None]  # [n, k, 2]
    half = sizes[:, None] / 2
    middles = dots[:, None] + away + np.clip(1.5 * toward, -1, 1) * half
    low, high = middles - half, middles + half
    starts = np.clip(dots[:, None], low, high)
    gaps = np.linalg.norm(np.clip(dots, low[:, :, None], high[:, :, None]) - dots, axis=-1) - radii  # [n, k, n]
    own = np.eye(len(dots), dtype=bool)[:, None]  # [n, 1, n]
    own_gap = gaps.min(axis=-1, where=own, initial=np.inf)
    lines = (own_gap > _BESIDE) | (gaps.min(axis=-1, where=~own, initial=np.inf) < own_gap + _UNSURE)
    over_dots = (_distance(dots, starts[:, :, None], dots[:, None, None]) < radii) & ~own
    outside = ((low < frame[0]) | (high > frame[1])).any(axis=-1)
    cost = gap + (1 - toward[:, 0]) + _LINE * lines + _LINE_OVER_DOT * over_dots.sum(axis=-1)
    cost += _NEARER * np.maximum(own_gap[..., None] + _AWAY - gaps, 0).sum(axis=-1, where=~own)
    cost += _CLASH * ((gaps < _CLEAR).sum(axis=-1) + outside)
    return _Options(middles, low - _CLEAR, high + _CLEAR, starts, lines, cost)


def _settle(options: _Options, dots: Array, order: NDArray[np.int64]) -> tuple[NDArray[np.int64], float]:
    """Let the names choose in this order until all stay; return their choices and what they cost together."""
    chosen = np.full(len(dots), -1)
    costs = np.zeros(len(dots))
    for _ in range(50):
        before = chosen.copy()
        for name in order:
            others = [other for other in order if other != name and chosen[other] >= 0]
            clashes = _clashes(options, dots, name, np.array(others, int), chosen)
            costs_here = options.cost[name] + _CLASH * clashes
            chosen[name] = costs_here.argmin()
            costs[name] = costs_here.min()
        if (chosen == before).all():
            break
    return chosen, float(costs.sum())


def _clashes(options: _Options, dots: Array, name: int, others: NDArray[np.int64], chosen: NDArray[np.int64]) -> Array:
    """Count for each place of a name the overlaps of names and the crossings of lines with the other names."""
    low, high, start = (part[name][:, None] for part in (options.low, options.high, options.starts))  # [k, 1, 2]
    there = others, chosen[others]
    their_low, their_high, their_start = options.low[there], options.high[there], options.starts[there]  # [m, 2]
    line, their_line = options.lines[name][:, None], options.lines[there]  # whether it is drawn: [k, 1], [m]
    end, their_end = dots[name], dots[others]
    clashes = (
        ((low < their_high) & (their_low < high)).all(axis=-1),
        line & _enters(start, end, their_low, their_high),
        their_line & _enters(their_start, their_end, low, high),
        line & their_line & _cross(start, end, their_start, their_end),
    )  # each [k, m]
    return np.sum(clashes, axis=(0, 2), dtype=float)


def _distance(point: Array, start: Array, end: Array) -> Array:
    """From points to line segments."""
    along = end - start
    length = np.maximum((along * along).sum(axis=-1), 1e-9)
    part = np.clip(((point - start) * along).sum(axis=-1) / length, 0, 1)
    return np.linalg.norm(start + part[..., None] * along - point, axis=-1)


def _enters(start: Array, end: Array, low: Array, high: Array) -> NDArray[np.bool_]:
    """Whether line segments touch boxes."""
    along = end - start
    along = np.where(np.abs(along) < 1e-9, 1e-9, along)
    sides = (low - start) / along, (high - start) / along
    first, last = np.minimum(*sides).max(axis=-1), np.maximum(*sides).min(axis=-1)
    return np.maximum(first, 0) <= np.minimum(last, 1)


def _cross(start: Array, end: Array, other_start: Array, other_end: Array) -> NDArray[np.bool_]:
    """Whether line segments cross within both."""

    def side(a: Array, b: Array, c: Array) -> Array:
        return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (c[..., 0] - a[..., 0])

    apart = side(start, end, other_start) * side(start, end, other_end) < 0
    return apart & (side(other_start, other_end, start) * side(other_start, other_end, end) < 0)
