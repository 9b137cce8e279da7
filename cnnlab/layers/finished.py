"""Arrays that XLA's compiler for CPU must finish before they are used, instead of computing them again at each use.

XLA fuses cheap operations into all that read them. On CPU it does so even where the reader wants another order of
memory, as the transposing copies of a weight gradient do: there a residual network computes its whole stream of
additions again, with strides of a batch (docs/performance.md). `optimization_barrier` is of no
use, since the compiler for CPU drops it before it fuses. A loop that never turns, but whose condition the compiler
cannot know, is no operation that can be fused. It costs microseconds, and a copy of the array where others read it too.
Where a process has several CPU devices there is no such loop, since its condition would be a matter of all of them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .devices import several_devices


def finished(x: jax.Array) -> jax.Array:
    """Return `x`, which on CPU is computed once and kept; gradients pass through."""
    return _finished_p.bind(x)


_finished_p = Primitive("finished")


def _on_cpu(x: Any) -> Any:
    if x.size == 0 or not jnp.issubdtype(x.dtype, jnp.floating) or several_devices():
        return x
    first = (0,) * x.ndim

    def turns(carry: tuple[jax.Array, jax.Array]) -> jax.Array:
        count, x = carry
        return (count < 1) & jnp.isnan(x[first])

    def body(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        count, x = carry
        return count + 1, jnp.maximum(x, x - 1)  # x itself, which the compiler does not know

    return lax.while_loop(turns, body, (jnp.int32(0), x))[1]


_finished_p.def_impl(lambda x: x)
_finished_p.def_abstract_eval(lambda x: x)
ad.deflinear2(_finished_p, lambda gradient, _: [gradient])
batching.primitive_batchers[_finished_p] = lambda arrays, axes: (_finished_p.bind(arrays[0]), axes[0])
mlir.register_lowering(_finished_p, mlir.lower_fun(lambda x: x, multiple_results=False))
mlir.register_lowering(_finished_p, mlir.lower_fun(_on_cpu, multiple_results=False), platform="cpu")
