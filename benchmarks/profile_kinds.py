"""The kinds of operations that `step_profile.py` tells apart on both sides, and how time is shared among them."""

from __future__ import annotations

from collections.abc import Sequence

FORWARD, INPUTS, KERNEL = "convolutions, forward", "convolutions, input gradients", "convolutions, weight gradients"
GRADIENTS = "convolutions, both gradients"  # where the two cannot be told apart
COPIES, POOLING, PRODUCTS = "copies and transposes", "pooling", "matrix products"
REST = "normalisation, activations, sums, loss, update"
SEVERAL = "several of these at once"
NOTHING = "no operation runs"


def share_out(intervals: Sequence[tuple[float, float, str]]) -> dict[str, float]:
    """Return seconds by kind, from the first start to the last end; they add up to that.

    Where operations of several kinds run at once, or wait for a thread that another holds, which a trace does not tell
    apart, `SEVERAL` gets that time; where none runs, `NOTHING` does.

    Args:
        intervals: `(start, end, kind)` of each operation, in seconds.
    """
    edges = sorted({edge for start, end, _ in intervals for edge in (start, end)})
    starting: dict[float, list[str]] = {}
    ending: dict[float, list[str]] = {}
    for start, end, kind in intervals:
        if end > start:
            starting.setdefault(start, []).append(kind)
            ending.setdefault(end, []).append(kind)
    running: list[str] = []
    seconds: dict[str, float] = {}
    for edge, following in zip(edges, edges[1:], strict=False):
        for kind in ending.get(edge, []):
            running.remove(kind)
        running += starting.get(edge, [])
        kinds = set(running) or {NOTHING}
        kind = kinds.pop() if len(kinds) == 1 else SEVERAL
        seconds[kind] = seconds.get(kind, 0.0) + following - edge
    return seconds
