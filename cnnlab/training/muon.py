"""Muon: momentum whose matrices are made nearly orthogonal before they become updates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from .groups import Path, matches, path_of

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of the quintic that lifts small singular values fastest
_TINY = 1e-12


def scale_by_muon(momentum: float, steps: int) -> optax.GradientTransformation:
    """Turn gradients into Muon's directions: Nesterov momentum, then a nearly orthogonal matrix for each weight.

        m <- momentum m + g,    u = momentum m + g,    X = u / |u|_F
        steps times: A = X X',  X <- 3.4445 X + (-4.7750 A + 2.0315 A A) X

    A filter `[h, w, in, out]` is the matrix `[h * w * in, out]`; X is the wide one of it and its transpose, so that A
    is the smaller of the two possible. The iterations bring the singular values near 1 (five: most to 0.7 to 1.2). They
    are done in bfloat16 on GPU and TPU and in float32 on CPU, for all filters of one size in one batch. No factor
    depends on the shape of the weight.

    Source: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024,
    https://kellerjordan.github.io/posts/muon.

    Args:
        momentum: share of the old momentum that an update leaves.
        steps: iterations of Newton and Schulz.
    """
    directions = optax.stateless(lambda updates, params: _orthogonal(updates, steps))
    return optax.chain(optax.trace(momentum, nesterov=True), directions)


def rescale_hidden_weights() -> optax.GradientTransformation:
    """Make each update start from the hidden weights scaled to Frobenius norm sqrt(outputs).

    It is the last part of a chain, after the learning rate: it adds the difference between the scaled weight and the
    weight to the update.
    """

    def moved(path: tuple[Any, ...], update: jax.Array, weight: jax.Array) -> jax.Array:
        if not is_hidden_weight(path_of(path), weight):
            return update
        scale = jnp.sqrt(float(weight.shape[-1])) / (jnp.linalg.norm(weight.ravel()) + _TINY)
        return update + (scale - 1.0) * weight

    return optax.stateless(lambda updates, params: jax.tree.map_with_path(moved, updates, params))


def is_hidden_weight(path: Path, parameter: jax.Array) -> bool:
    """Return whether Muon takes care of a parameter: one of two dimensions or more outside the last layer, `head`."""
    return parameter.ndim > 1 and not matches("head", path)


def newton_schulz(matrices: jax.Array, steps: int) -> jax.Array:
    """Return nearly orthogonal matrices with the singular vectors of those given.

    Args:
        matrices: `[..., rows, columns]`, with no more rows than columns.
        steps: iterations.
    """
    matrices = matrices / (jnp.linalg.norm(matrices, axis=(-2, -1), keepdims=True) + _TINY)

    def iterated(x: jax.Array) -> jax.Array:
        a, b, c = _COEFFICIENTS
        for _ in range(steps):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x

    def in_half(x: jax.Array) -> jax.Array:
        return iterated(x.astype(jnp.bfloat16)).astype(x.dtype)

    return jax.lax.platform_dependent(matrices, cpu=iterated, default=in_half)


def _orthogonal(updates: Any, steps: int) -> Any:
    """Make each leaf nearly orthogonal, those of one size together."""
    leaves, tree = jax.tree.flatten(updates)
    wide = [_wide(leaf) for leaf in leaves]
    sizes: dict[tuple[int, ...], list[int]] = {}
    for i, matrix in enumerate(wide):
        sizes.setdefault(matrix.shape, []).append(i)
    for places in sizes.values():
        batch = newton_schulz(jnp.stack([wide[i] for i in places]), steps)  # [n, rows, columns]
        for i, matrix in zip(places, batch, strict=True):
            wide[i] = matrix
    return tree.unflatten([_undone(matrix, leaf) for matrix, leaf in zip(wide, leaves, strict=True)])


def _wide(weight: jax.Array) -> jax.Array:
    matrix = weight.reshape(-1, weight.shape[-1])  # [h * w * in, out]
    return matrix.T if matrix.shape[0] > matrix.shape[1] else matrix


def _undone(matrix: jax.Array, weight: jax.Array) -> jax.Array:
    outputs = weight.shape[-1]
    tall = weight.size // outputs > outputs
    return (matrix.T if tall else matrix).reshape(weight.shape)
