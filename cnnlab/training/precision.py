"""In what precision a network computes; its numbers stay as they are."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx

from cnnlab.layers import BatchNorm


def set_precision(network: nnx.Module, precision: str) -> nnx.Module:
    """Return a network that computes in the given precision; it shares the arrays of the one given.

    Every module that has a `dtype` and leaves it open (None) gets it; parameters and batch statistics keep theirs. So a
    layer rounds its inputs and weights and returns results of that type, and a BatchNorm of `cnnlab.layers` still
    computes in float32. Two kinds of modules stay as they are: one that was built with a `dtype`, and a BatchNorm of
    flax, which would round its running statistics too; it computes, and returns, float32.

    Source: D. Kalamkar et al., "A Study of BFLOAT16 for Deep Learning Training", 2019, arXiv:1905.12322; the loss needs
    no scaling, since bfloat16 has the range of float32.

    Args:
        network: not changed.
        precision: "float32" (the network as it is) or "bfloat16".
    """
    if precision == "float32":
        return network
    network = nnx.merge(*nnx.split(network))
    for _, module in nnx.iter_modules(network):
        rounds_statistics = isinstance(module, nnx.BatchNorm) and not isinstance(module, BatchNorm)
        if getattr(module, "dtype", jnp.float32) is None and not rounds_statistics:
            module.dtype = jnp.dtype(precision)  # pyright: ignore[reportAttributeAccessIssue]
    return network
