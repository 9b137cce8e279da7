"""What the tests of drawn shapes share: numbers, tolerances and the comparison with the oracle.

Two kinds of numbers: -1, 0 and 1, whose sums of some hundred terms even bfloat16 holds exactly, so that ties between
maxima are real and every result must be equal; and normal numbers, which the type of the layer has rounded before.
"""

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from tests.layers.lax_oracle import Pair, Results

# Two float32 sums of up to some thousand terms in different order, relative to the largest number of the result.
FLOAT32 = 1e-5

# A test draws one seed and takes all its choices from `random.Random(seed)`. What hypothesis itself draws one by one is
# often as small as can be, or as the example before: of thirty convolutions three were of bfloat16.
seeds = st.integers(0, 2**32 - 1)
FLOATS = (jnp.float32, jnp.bfloat16, jnp.float16)

# Of `dense_convolution`, so that a weight gradient goes through the batch two images at a time.
PARTS_OF_TWO = {"_BYTES_OF_A_PANEL": 1, "_BYTES_OF_A_FOLDED_PANEL": 1, "_FEWEST_IMAGES": 2}


def two(random: Random, low: int, high: int) -> Pair:
    return random.randint(low, high), random.randint(low, high)


def sound_pads(random: Random, kernel: int, dilation: int = 1) -> Pair:
    """Padding with which XLA reads no other memory (openxla/xla#48713), neither for the value nor for a gradient."""
    low, high = two(random, -2, (kernel - 1) * dilation)
    return low, high if low >= 0 else min(high, 0)


def half_unit(dtype: Any) -> float:
    """By how much rounding to the nearest number may change a number, relative to it: 2**-8 for bfloat16."""
    return float(jnp.finfo(dtype).eps) / 2


def of_sums(dtype: Any, parts: int = 0) -> float:
    """Tolerance relative to the largest number of a result whose sums are made in float32 and rounded once at the end.

    Where a number is the sum of `parts` sums that were rounded before, these errors have any sign, and together are
    about the root of their number, were every part as large as the largest number of the result.
    """
    return FLOAT32 if dtype == jnp.float32 else half_unit(dtype) * (1 + math.sqrt(parts))


def whole(dtype: Any, *shapes: Sequence[int]) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.integers(-1, 2, shape), dtype) for shape in shapes]


def normal(dtype: Any, *shapes: Sequence[int]) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def value_and_gradients(function: Callable) -> Callable[..., Results]:
    """Compile the value and the gradients: a function of the value's direction and of the arguments, in this order."""

    def program(direction: jax.Array, *arguments: jax.Array) -> list[jax.Array]:
        value, pull = jax.vjp(function, *arguments)
        return [value, *pull(direction)]

    # It runs for a millisecond: LLVM need not try hard.
    compiled = jax.jit(program, compiler_options={"xla_backend_optimization_level": 0})

    def run(*arguments: jax.Array) -> Results:
        results = compiled(*arguments)
        assert {x.dtype for x in results} == {arguments[0].dtype}
        return [np.asarray(x, np.float64) for x in results]

    return run


def lowered_for_cpu(function: Callable, dtype: Any, *shapes: Sequence[int]) -> str:
    """The program for CPU of the value and the gradients of a function of arrays of these shapes."""

    def program(*arguments: jax.Array) -> Any:
        value, pull = jax.vjp(function, *arguments)
        return value, pull(value)

    arrays = [jax.ShapeDtypeStruct(shape, dtype) for shape in shapes]
    return jax.jit(program).trace(*arrays).lower(lowering_platforms=("cpu",)).as_text()


def assert_exact(ours: Results, theirs: Results) -> None:
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def assert_within(tolerance: float, ours: Results, theirs: Results) -> None:
    """Every number within `tolerance` times the largest of the expected array."""
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert np.abs(a - b).max(initial=0) <= tolerance * np.abs(b).max(initial=0)


def assert_same(
    ours: Callable, theirs: Callable[..., Results], shapes: Sequence[Sequence[int]], dtype: Any, parts: int
) -> None:
    """Compare value and gradients on whole numbers, where they are equal, and on normal ones, within rounding.

    Args:
        ours: a function of images and kernel.
        theirs: the oracle, a function of direction, images and kernel.
        shapes: of the three.
        dtype: of the numbers.
        parts: how many sums, rounded before, a number of a gradient adds.
    """
    run = value_and_gradients(ours)
    exact, rounded = whole(dtype, *shapes), normal(dtype, *shapes)
    assert_exact(run(*exact), theirs(*exact))
    # Normal numbers that rounding makes equal would have another first maximum: whole ones decide where gradients go.
    assert_within(of_sums(dtype), run(*rounded)[:1], theirs(*rounded)[:1])
    arguments = rounded[0], *exact[1:]
    assert_within(of_sums(dtype, parts), run(*arguments)[1:], theirs(*arguments)[1:])


def parts_of_gradients(block: Pair | None, kernel_shape: Sequence[int]) -> int:
    """How many rounded sums the blocks add up to one number of a gradient, at most.

    The kernel's comes from each pixel of a block, the images' from the blocks that overlap. Without blocks, from none.
    """
    if block is None:
        return 0
    overlaps = [-(-(b + k - 1) // b) for b, k in zip(block, kernel_shape[:2], strict=True)]
    return max(math.prod(overlaps), math.prod(block))
