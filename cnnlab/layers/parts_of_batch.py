"""What a function makes of a batch, a part of its images at a time, by a loop: put together, or added up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def join_parts(of_part: Callable[[jax.Array], jax.Array], images: jax.Array, part: int) -> jax.Array:
    """Put together what a function makes of the parts of a batch.

    Args:
        of_part: takes `part` images, or the fewer that are left over; returns an array with the batch as first axis.
        images: with the batch as first axis.
        part: images of a part.
    """
    batch = images.shape[0]
    if part >= batch:
        return of_part(images)
    whole, rest = divmod(batch, part)
    numbers = jnp.arange(whole, dtype=jnp.int32)
    joined = lax.map(lambda i: of_part(lax.dynamic_slice_in_dim(images, i * part, part)), numbers)
    joined = joined.reshape(whole * part, *joined.shape[2:])
    return jnp.concatenate([joined, of_part(images[whole * part :])]) if rest else joined


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
    batch = arrays[0].shape[0]
    if part >= batch:
        return of_part(*arrays)
    whole, rest = divmod(batch, part)
    type_of_sum = jnp.promote_types(like.dtype, jnp.float32)

    def add_part(number: jax.Array, total: jax.Array) -> jax.Array:
        return total + of_part(*(lax.dynamic_slice_in_dim(x, number * part, part) for x in arrays))

    if rest:
        total = (of_rest or of_part)(*(x[whole * part :] for x in arrays)).astype(type_of_sum)
    else:
        total = jnp.zeros(like.shape, type_of_sum)
    return lax.fori_loop(0, whole, add_part, total).astype(like.dtype)
