"""Normal random numbers cheap enough for noise on every training image.

`jax.random.normal` spends, on CPU, as long on its threefry generator as the LeNet-style network spends
on its whole training step. Noise for augmentation needs normal numbers that are independent from step to
step and reproducible from a key, not a generator of cryptographic descent; here a 32-bit integer
hash of the element's index, keyed by both words of the JAX key, gives the bits, and the Box-Muller
transform of 20 bits of radius and 12 bits of angle gives the number (|z| <= 5.4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp


def fast_normal(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Draw float32 standard normal numbers of `shape`, a pure function of `key`.

    Moments and tails agree with the normal distribution up to 5.4 standard deviations (tested up to
    4.5); the values are not those of `jax.random.normal`.

    Args:
        key: a JAX key; its first and last words are used.
        shape: any, with fewer than 2**32 elements.

    Source:
        Box and Muller (1958); the integer hash is "lowbias32" of Chris Wellons' hash prospector.
    """
    words = jax.random.key_data(key).astype(jnp.uint32).ravel()
    index = jax.lax.iota(jnp.uint32, math.prod(shape))
    bits = scramble(scramble(index + words[0]) ^ words[-1])
    uniform = ((bits >> 12).astype(jnp.float32) + 0.5) * 2.0**-20  # in (0, 1)
    half_turn = ((bits & 0xFFF).astype(jnp.float32) + 0.5) * (math.pi / 4096) - math.pi / 2
    s = _sine(half_turn)
    return (jnp.sqrt(-2.0 * jnp.log(uniform)) * (1.0 - 2.0 * s * s)).reshape(shape)  # cos 2x = 1 - 2 sin^2 x


def scramble(x: jax.Array) -> jax.Array:
    """Map uint32 numbers one to one to others that look random (the hash "lowbias32")."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def _sine(x: jax.Array) -> jax.Array:
    """Sine for |x| <= pi / 2 by its Taylor polynomial of degree 9 (error below 4e-6)."""
    x2 = x * x
    return x * (1 + x2 * (-1 / 6 + x2 * (1 / 120 + x2 * (-1 / 5040 + x2 / 362880))))
