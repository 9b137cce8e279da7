"""Sums over the images of a batch, a part of it at a time, by a loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def sum_over_parts(
    of_part: Callable[..., jax.Array],
    arrays: tuple[jax.Array, ...],
    part: int,
    like: Any,
    of_rest: Callable[..., jax.Array] | None = None,
) -> jax.Array:
    """Add what a function makes of the parts of a batch, in float32 at least.

    Args:
        of_part: takes `part` images of each array, returns an array of `like`'s shape.
        arrays: each with the batch as first axis.
        part: images of a part.
        like: shape and type of the sum.
        of_rest: takes the images that are left over, fewer of them; by default `of_part`.
    """
    whole, rest = divmod(arrays[0].shape[0], part)
    type_of_sum = jnp.promote_types(like.dtype, jnp.float32)

    def add_part(number: jax.Array, total: jax.Array) -> jax.Array:
        return total + of_part(*(lax.dynamic_slice_in_dim(x, number * part, part) for x in arrays))

    if rest:
        total = (of_rest or of_part)(*(x[whole * part :] for x in arrays)).astype(type_of_sum)
    else:
        total = jnp.zeros(like.shape, type_of_sum)
    return lax.fori_loop(0, whole, add_part, total).astype(like.dtype)
