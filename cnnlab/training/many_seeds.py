"""Several seeds as one: states stacked lane by lane, and how many of them a device should train at once.

Under `jax.vmap` the lanes of a program never meet: one whose numbers are not finite any more leaves the others as they
are, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from .state import TrainState

_T = TypeVar("_T")
_SHARE_OF_FREE_MEMORY = 0.9


def stack(lanes: Sequence[_T]) -> _T:
    """Return pytrees of equal structure as one, with the lane as first axis of each leaf; a single one as it is."""
    if len(lanes) == 1:
        return lanes[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *lanes)


def lane_of(states: TrainState, lane: int) -> TrainState:
    """Return the state of one lane; a state that is not stacked is that of its only one."""
    return _take(states, lane) if states.step.ndim else states


@jax.jit
def _take(tree: Any, lane: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[lane], tree)


def choose_width(seeds: int, seconds: Callable[[int], float | None]) -> int:
    """Return how many seeds to train at once, by measurement: 1 where one after the other is faster.

    As many as memory allows, halving from all of them, are tried against one alone.

    Args:
        seeds: how many there are.
        seconds: measures a training step of so many seeds at once; None where they do not fit into the memory.
    """
    alone, width = seconds(1), seeds
    if alone is None:  # the training itself will say so
        return 1
    while width > 1:
        together = seconds(width)
        if together is not None:
            return width if together < width * alone else 1
        width = (width + 1) // 2
    return 1


def fits(program: Any) -> bool:
    """Whether a compiled program, whose arguments are on the device, leaves a tenth of the free memory free.

    True where the device does not tell its memory (CPU).
    """
    stats, needs = jax.devices()[0].memory_stats(), program.memory_analysis()
    if not stats or "bytes_limit" not in stats or needs is None:
        return True
    more = needs.temp_size_in_bytes + needs.output_size_in_bytes - needs.alias_size_in_bytes
    return more <= _SHARE_OF_FREE_MEMORY * (stats["bytes_limit"] - stats["bytes_in_use"])


def no_memory(error: BaseException) -> bool:
    """Whether an error of JAX says that the device has not enough memory."""
    return "RESOURCE_EXHAUSTED" in str(error)
