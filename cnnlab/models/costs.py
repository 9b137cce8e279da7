"""Multiply-adds of a traced program, exact for convolutions and matrix products."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any

from .watching import call_of


def multiply_adds(program: Any) -> Counter[int | None]:
    """Count the multiply-adds of a program of `jax.make_jaxpr`, by the call they belong to (`watching.call_of`).

    A convolution counts `outputs * kernel height * kernel width * in_channels / groups` (padded zeros count, as
    in the papers), a matrix product `outputs * contracted length`; nothing else counts. Where a function has
    lowerings per platform, the default one counts, so that the number is the network's and not the machine's;
    of the branches of another condition the costliest does. A loop over a known length counts each turn, a
    `while` one.

    Args:
        program: a jaxpr, closed or not.
    """
    return _count(getattr(program, "jaxpr", program), None)


def _count(program: Any, owner: int | None) -> Counter[int | None]:
    total: Counter[int | None] = Counter()
    for operation in program.eqns:
        inner = call_of(str(operation.source_info.name_stack))
        call = owner if inner is None else inner
        name = operation.primitive.name
        if name in ("conv_general_dilated", "dense_conv"):
            total[call] += _convolution(operation)
        elif name == "dot_general":
            total[call] += _matrix_product(operation)
        elif name == "cond":
            total += _branch(operation.params, call)
        else:
            turns = operation.params["length"] if name == "scan" else 1
            for part in _programs(operation.params):
                for key, number in _count(part, call).items():
                    total[key] += turns * number
    return total


def _convolution(operation: Any) -> int:
    _, kernel = operation.invars
    numbers = operation.params.get("dimension_numbers")  # ours is always [kh, kw, in, out]
    out_channels = kernel.aval.shape[-1 if numbers is None else numbers.rhs_spec[0]]
    return math.prod(operation.outvars[0].aval.shape) * math.prod(kernel.aval.shape) // out_channels


def _matrix_product(operation: Any) -> int:
    (contracted, _), _ = operation.params["dimension_numbers"]
    shape = operation.invars[0].aval.shape
    return math.prod(operation.outvars[0].aval.shape) * math.prod(shape[axis] for axis in contracted)


def _branch(params: dict[str, Any], call: int | None) -> Counter[int | None]:
    counts = [_count(branch.jaxpr, call) for branch in params["branches"]]
    platforms = params.get("branches_platforms")
    if platforms is not None and None in platforms:
        return counts[platforms.index(None)]
    return max(counts, key=lambda count: count.total())


def _programs(params: dict[str, Any]) -> Iterator[Any]:
    """The programs inside an operation: the body of a loop, of a jitted function, ..."""
    for value in params.values():
        for item in value if isinstance(value, list | tuple) else [value]:
            item = getattr(item, "jaxpr", item)
            if hasattr(item, "eqns"):
                yield item
