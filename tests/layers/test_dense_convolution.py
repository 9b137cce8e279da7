"""The convolution primitive against `jax.lax`: gradients of both modes and orders, `vmap`, loops, lowerings.

Drawn shapes and options are in test_drawn_convolutions.py.
"""

import functools
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from cnnlab.layers import conv_general_dilated, dense_convolution
from cnnlab.layers.dense_convolution import dense_conv

# Two float32 sums of up to some thousand terms in different order, relative to the largest number of the result.
FLOAT32 = 1e-5
BFLOAT16 = 2**-6  # two units of a number with 8 bits
ONE = (1, 1)


def with_lax(
    inputs: Any, kernel: Any, strides=ONE, padding=((1, 1), (1, 1)), lhs_dilation=ONE, rhs_dilation=ONE
) -> Any:
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        inputs, kernel, strides, padding, lhs_dilation, rhs_dilation, dimension_numbers=numbers
    )


def ours(inputs, kernel, strides=ONE, padding=((1, 1), (1, 1)), lhs_dilation=ONE, rhs_dilation=ONE):
    options = {"strides": strides, "padding": padding, "lhs_dilation": lhs_dilation, "rhs_dilation": rhs_dilation}
    return dense_conv(inputs, kernel, **options)


def normal(*shapes: tuple[int, ...], dtype: Any = jnp.float32) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


def assert_close(got: Any, expected: Any, tolerance: float = FLOAT32) -> None:
    """Every number within `tolerance` times the largest of the expected array."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert np.abs(a - b).max(initial=0) <= tolerance * np.abs(b).max(initial=0)


def objective(conv: Callable) -> Callable:
    """A number that depends on the convolution in a curved way, so that derivatives of any order are not zero."""
    return lambda inputs, kernel: jnp.sin(conv(inputs, kernel)).sum()


def both(transform: Callable, **options: Any) -> tuple[Any, Any]:
    """What a transformation gives for our convolution and for that of lax, on the same small arrays."""
    arrays = normal((2, 6, 5, 3), (3, 3, 3, 4))
    results = [transform(objective(functools.partial(conv, **options)), *arrays) for conv in (ours, with_lax)]
    return results[0], results[1]


def test_forward_mode_second_order_and_mixed_order_are_those_of_lax() -> None:
    strided = {"strides": (2, 1), "rhs_dilation": (1, 2)}

    def derivatives(f: Callable, x: Any, w: Any) -> Any:
        gradient = jax.grad(f, (0, 1))
        forward = jax.jvp(f, (x, w), (x, w))
        over_reverse = jax.jvp(gradient, (x, w), (x, w))
        twice = jax.grad(lambda w: (gradient(x, w)[1] ** 2).sum())(w)
        return jax.jit(lambda: (forward, over_reverse, twice))()

    assert_close(*both(derivatives, **strided), 10 * FLOAT32)  # sums of sums


@pytest.mark.parametrize("most", [32, 1])
@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0), (1, 3)])
def test_vmap_over_images_kernels_or_both_is_that_of_lax(axes: Any, most: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(dense_convolution, "_MOST_KERNELS", most)  # side by side, or as a loop

    def mapped(f: Callable, x: Any, w: Any) -> Any:
        x, w = (a if axis is None else jnp.stack([a, 2 * a], axis) for a, axis in zip((x, w), axes, strict=True))
        return jax.jit(jax.vmap(jax.value_and_grad(f, (0, 1)), axes))(x, w)

    assert_close(*both(mapped))


def test_under_vmap_over_kernels_there_are_no_groups_on_cpu_and_jaxs_groups_elsewhere() -> None:
    def gradient(conv: Callable) -> Callable:
        return jax.vmap(jax.grad(objective(conv), (0, 1)))

    shapes = [(2, *shape) for shape in SHAPES]
    assert "feature_group_count = 2" not in lowered("cpu", gradient(ours), *shapes)
    groups = ["feature_group_count = 2" in line for line in convolutions(lowered("cuda", gradient(ours), *shapes))]
    assert (
        groups.count(True)
        == [
            "feature_group_count = 2" in line for line in convolutions(lowered("cuda", gradient(with_lax), *shapes))
        ].count(True)
        > 0
    )


def test_a_loop_trains_as_steps_one_by_one_do() -> None:
    def train(f: Callable, x: Any, w: Any) -> Any:
        step = lambda w: w - 0.01 * jax.grad(f, 1)(x, w)  # noqa: E731
        return jax.jit(lambda w: lax.fori_loop(0, 3, lambda _, w: step(w), w))(w)

    def train_by_steps(f: Callable, x: Any, w: Any) -> Any:
        for _ in range(3):
            w = w - 0.01 * jax.grad(f, 1)(x, w)
        return w

    assert_close(both(train)[0], both(train_by_steps)[1])


def lowered(platform: str, function: Callable, *shapes: tuple[int, ...]) -> str:
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


def convolutions(text: str) -> list[str]:
    """Every convolution of a program with all its attributes."""
    return re.findall(r"stablehlo.convolution\([^)]*\) (.*)", text)


def layouts(text: str) -> set[str]:
    return set(re.findall(r"dim_numbers = (\[[^\]]*\]x\[[^\]]*\]->\[[^\]]*\])", text))


SHAPES = ((8, 16, 16, 32), (3, 3, 32, 32))


def test_on_cpu_every_convolution_of_a_gradient_is_in_the_order_the_fast_kernels_take() -> None:
    gradient = jax.grad(objective(ours), (0, 1))
    assert layouts(lowered("cpu", gradient, *SHAPES)) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    assert len(layouts(lowered("cpu", jax.grad(objective(with_lax), (0, 1)), *SHAPES))) > 1  # negative control


def test_on_cuda_the_gradient_is_that_of_lax_and_nothing_loops() -> None:
    text, reference = (lowered("cuda", jax.grad(objective(f), (0, 1)), *SHAPES) for f in (ours, with_lax))
    assert len(convolutions(text)) == 3 and convolutions(text) == convolutions(reference)
    assert "while" not in text and "while" in lowered("cpu", jax.grad(objective(ours), 1), *SHAPES)


def test_a_precision_that_is_set_for_a_while_holds() -> None:
    with jax.default_matmul_precision("highest"):
        text, reference = (lowered("cuda", jax.grad(objective(f), (0, 1)), *SHAPES) for f in (ours, with_lax))
    assert "HIGHEST" in text and convolutions(text) == convolutions(reference)
    assert "HIGHEST" not in lowered("cuda", jax.grad(objective(ours), (0, 1)), *SHAPES)


def test_an_eager_call_compiles_once(caplog: Any) -> None:
    def compiled(batch: int) -> int:
        arrays = normal((batch, 5, 4, 3), (3, 3, 3, 7))
        caplog.clear()
        with jax.log_compiles():
            ours(*arrays)
        return sum("Compiling" in record.getMessage() for record in caplog.records)

    assert compiled(2) > 0  # a shape that is new
    assert compiled(2) == 0
    assert compiled(3) > 0


def test_a_symbolic_batch_and_height_are_exported() -> None:
    batch, height = jax.export.symbolic_shape("b, h")
    like = jax.ShapeDtypeStruct((batch, height, 6, 3), jnp.float32), jax.ShapeDtypeStruct((3, 3, 3, 20), jnp.float32)
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
    program = jax.jit(lambda x, w: conv_general_dilated(x, w, (2, 2), "SAME", **options))
    inputs, kernel = normal((2, 8, 6, 3), (3, 3, 3, 20))
    got = jax.export.export(program)(*like).call(inputs, kernel)
    assert_close(got, program(inputs, kernel))


TWO_DEVICES = """
import jax, numpy as np, jax.numpy as jnp
from jax.sharding import PartitionSpec as P, NamedSharding
from jax import lax
from cnnlab.layers import conv_max_pool
from cnnlab.layers.dense_convolution import dense_conv
ones = ((1, 1), (1, 1))
lax_conv = lambda x, w: lax.conv_general_dilated(x, w, (1, 1), ones, dimension_numbers=("NHWC", "HWIO", "NHWC"))
our_conv = lambda x, w: dense_conv(x, w, padding=ones)
rng = np.random.default_rng(0)
x, w = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in ((4, 6, 5, 8), (3, 3, 8, 20)))
expected = jax.grad(lambda x, w: (lax_conv(x, w) ** 2).sum(), (0, 1))(x, w)
close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-2)

auto = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
placed = jax.device_put(x, NamedSharding(auto, P("d")))
program = jax.jit(jax.grad(lambda x, w: (our_conv(x, w) ** 2).sum(), (0, 1))).lower(placed, w).compile()
jax.tree.map(close, program(placed, w), expected)
assert program.as_text().count(" all-reduce(") <= 1, program.as_text()  # of the gradient of the kernel alone
for channels in (32, 128):  # one device would take the batch in parts, and the second one by transformed tiles
    many = jax.device_put(jnp.ones((64, 8, 8, channels)), NamedSharding(auto, P("d")))
    gradient = jax.jit(jax.grad(lambda w: (our_conv(many, w) ** 2).sum()))
    program = gradient.lower(jnp.ones((3, 3, channels, 128))).compile().as_text()
    assert " all-gather(" not in program and " convolution(" in program, program

for size in (8, 128):  # one device would go by blocks, the second in parts of the batch
    few = jax.device_put(jnp.ones((size, 12, 12, 3)), NamedSharding(auto, P("d")))
    gradient = jax.jit(jax.grad(lambda w: (conv_max_pool(few, w, 2) ** 2).sum()))
    program = gradient.lower(jnp.ones((5, 5, 3, 6))).compile().as_text()
    assert " all-gather(" not in program and " collective-permute(" not in program, program

inside = jax.shard_map(
    lambda x, w: jax.grad(lambda w: (our_conv(x, w) ** 2).sum())(w), mesh=auto, in_specs=(P("d"), P()), out_specs=P()
)
close(jax.jit(inside)(x, w), expected[1])

explicit = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
with jax.set_mesh(explicit):
    placed = jax.device_put(x, P("d"))
    close(jax.jit(our_conv)(placed, w), lax_conv(x, w))
print("done")
"""


def test_arrays_spread_over_devices_in_any_of_jaxs_three_ways_give_what_lax_gives() -> None:
    variables = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES], env=variables, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip() == "done", done.stderr


CASES = {
    # (channels in, out), threads -> what the program for CPU holds
    (16, 16, 1): "tensor<3x4x16x32xf32>",  # pairs of columns, for the library that is fast on one thread
    (16, 8, 1): "tensor<3x3x16x17xf32>",  # or more channels
    (16, 16, 2): "pad = [[1, 1], [1, 1]]",
    (32, 32, 1): "pad = [[1, 1], [1, 1]]",
    (32, 32, 2): "pad = [[1, 2], [1, 1]]",  # one row more, for the library that uses all threads
    (3, 64, 2): "pad = [[1, 2], [1, 1]]",
    (32, 8, 2): "pad = [[1, 1], [1, 1]]",  # too few channels for that library, as the gradient of an image has
    (32, 9, 2): "pad = [[1, 2], [1, 1]]",
    (32, 8, 3): "pad = [[1, 2], [1, 1]]",
    (64, 128, 2): "pad = [[1, 1], [1, 1]]",
}


@pytest.mark.parametrize(("case", "expected"), CASES.items(), ids=str)
def test_channels_and_threads_choose_the_library(case: Any, expected: str, monkeypatch: Any) -> None:
    in_channels, out_channels, threads = case
    monkeypatch.setattr(dense_convolution, "_threads", lambda: threads)
    shapes = (2, 8, 8, in_channels), (3, 3, in_channels, out_channels)
    text = lowered("cpu", lambda x, w: ours(x, w), *shapes)  # a function of its own, so that nothing is remembered
    assert expected in text
    assert ("x17xf32>" in text) == (expected.endswith("x17xf32>"))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("width", [5, 6])  # an even one goes in pairs of columns
@pytest.mark.parametrize("channels", [(16, 16), (9, 12), (16, 8), (3, 20), (20, 24), (20, 3)], ids=str)
def test_the_choice_of_the_library_changes_no_value(channels: Any, width: int, threads: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(dense_convolution, "_threads", lambda: threads)
    inputs, kernel = normal((2, 6, width, channels[0]), (3, 3, *channels))

    def run(conv: Callable) -> Any:
        return jax.jit(lambda x, w: (conv(x, w), jax.grad(objective(conv), (0, 1))(x, w)))(inputs, kernel)

    assert_close(run(ours), run(with_lax))


def test_the_layer_uses_the_primitive_unless_there_are_groups() -> None:
    def layer(groups: int) -> Callable:
        options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": groups}
        return lambda x, w: conv_general_dilated(x, w, (1, 1), "SAME", **options)

    dense = str(jax.make_jaxpr(layer(1))(*normal(*SHAPES)))
    grouped = str(jax.make_jaxpr(layer(2))(*normal(SHAPES[0], (3, 3, 16, 32))))
    assert "dense_conv" in dense and "dense_conv" not in grouped
