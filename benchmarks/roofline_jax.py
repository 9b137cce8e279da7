"""The peaks of `roofline.py`: seconds of a square matrix product and of a copy, in the dtype of the benchmark."""

from __future__ import annotations

from contender import Channel

if __name__ == "__main__":  # binds the process to its CPUs: before JAX starts its threads
    CHANNEL = Channel()

from functools import partial

import jax
import jax.numpy as jnp
from architecture_task import Pass

REPEATS, SECONDS = 5, 0.1  # passes per request, and how long one is at least


@partial(jax.jit, donate_argnums=1, keep_unused=True)
def copy(source: jax.Array, target: jax.Array) -> jax.Array:
    """Write the negative of the source over the target.

    Into new memory, the kernel would clear pages instead. A plain copy is on CPU one thread's; a sign costs nothing.
    """
    return -source


def run(channel: Channel) -> None:
    """Compile both, then time a few passes of each per request."""
    side, dtype = channel.options["side"], jnp.dtype(channel.options["dtype"])
    # Random numbers, not constants: a GPU draws less power and runs faster on those.
    left, right = jax.random.normal(jax.random.key(0), (2, side, side), dtype)
    product = jax.jit(jnp.matmul)
    source = jnp.ones(channel.options["array_bytes"] // dtype.itemsize, dtype)
    target = copy(source, jnp.zeros_like(source))
    jax.block_until_ready((product(left, right), target))

    def copy_again() -> jax.Array:
        nonlocal target
        target = copy(source, target)
        return target

    product_pass = Pass(lambda: product(left, right), jax.block_until_ready, SECONDS)
    copy_pass = Pass(copy_again, jax.block_until_ready, SECONDS)
    channel.answer(ready=True)
    while True:
        channel.answer(
            product=[product_pass() for _ in range(REPEATS)],
            copy=[copy_pass() for _ in range(REPEATS)],
        )


if __name__ == "__main__":
    run(CHANNEL)
