"""Maxima whose gradient goes to the first of equal ones, as pooling layers want it."""

from __future__ import annotations

from functools import reduce

import jax
import jax.numpy as jnp

_MOST_PARTS = 16


@jax.custom_jvp
def first_maximum(x: jax.Array) -> jax.Array:
    """Return the maximum over the first axis; its gradient goes to the first of equal maxima."""
    return _maximum(x)


def _maximum(x: jax.Array) -> jax.Array:
    # For so few, XLA's compiler for CPU makes one pass of the maxima; a reduction takes many times as long.
    return reduce(jnp.maximum, list(x)) if len(x) <= _MOST_PARTS else x.max(axis=0)


@first_maximum.defjvp
def _first_maximum_jvp(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
    (x,), (dx,) = primals, tangents
    largest, count = _maximum(x), x.shape[0]
    index_type = jnp.uint8 if count <= 256 else jnp.int32
    first = jnp.full(largest.shape, count - 1, index_type)
    for i in reversed(range(count - 1)):
        first = jnp.where(x[i] == largest, jnp.asarray(i, index_type), first)
    index = jnp.arange(count, dtype=index_type).reshape(-1, *[1] * largest.ndim)
    chosen = first[None] == index
    return largest, jnp.where(chosen, dx, jnp.zeros((), dx.dtype)).sum(axis=0, dtype=dx.dtype)


@jax.custom_jvp
def first_maximum_of(*parts: jax.Array) -> jax.Array:
    """Return the maximum of arrays of one shape; its gradient goes to the first of equal maxima."""
    return reduce(jnp.maximum, parts)


@first_maximum_of.defjvp
def _first_maximum_of_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    largest = reduce(jnp.maximum, primals)
    tangent = tangents[-1]
    for part, change in zip(primals[-2::-1], tangents[-2::-1], strict=True):
        tangent = jnp.where(part == largest, change, tangent)
    return largest, tangent
