"""The JAX side of `convolution_passes.py`: cnnlab's convolution, or `jax.lax`'s with JAX's own gradients."""

from __future__ import annotations

from contender import Channel

if __name__ == "__main__":  # binds the process to its CPUs: before JAX starts its threads
    CHANNEL = Channel()

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from cnnlab.layers import conv_general_dilated

REPEATS = 5


def seconds_of(function: Callable[..., Any], *arrays: jax.Array) -> float:
    """Return the seconds of one call, the mean of a few after one that is not timed: others have used the caches."""
    jax.block_until_ready(function(*arrays))
    start = time.perf_counter()
    for _ in range(REPEATS):
        done = function(*arrays)
    jax.block_until_ready(done)
    return (time.perf_counter() - start) / REPEATS


def run(channel: Channel) -> None:
    """Compile all passes, then time each at every request."""
    function = lax.conv_general_dilated if channel.options["side"] == "lax" else conv_general_dilated
    numbers = ("NHWC", "HWIO", "NHWC")
    conv = partial(function, dimension_numbers=numbers)

    def forward(x: jax.Array, w: jax.Array) -> jax.Array:
        return conv(x, w, (1, 1), "SAME")

    passes = {
        "forward": lambda x, w, g: forward(x, w),
        "inputs": lambda x, w, g: jax.vjp(lambda x: forward(x, w), x)[1](g),
        "kernel": lambda x, w, g: jax.vjp(lambda w: forward(x, w), w)[1](g),
    }
    seeds = channel.options["seeds"]
    programs = {way: jax.jit(of if seeds == 1 else jax.vmap(of)) for way, of in passes.items()}
    several = () if seeds == 1 else (seeds,)
    square = jnp.ones((1024, 1024))
    product = jax.jit(jnp.matmul)
    tasks = []
    for batch, side, ins, outs, kernel in channel.options["shapes"]:
        keys = jax.random.split(jax.random.key(0), 3)
        shapes = (batch, side, side, ins), (kernel, kernel, ins, outs), (batch, side, side, outs)
        tasks.append([jax.random.normal(key, (*several, *shape)) for key, shape in zip(keys, shapes, strict=True)])
        for program in programs.values():
            jax.block_until_ready(program(*tasks[-1]))
    product(square, square).block_until_ready()
    while True:
        seconds = [{way: seconds_of(program, *arrays) for way, program in programs.items()} for arrays in tasks]
        channel.answer(seconds=seconds, product=seconds_of(product, square, square))


if __name__ == "__main__":
    run(CHANNEL)
