"""The weight gradient of the convolution primitive on CPU: in parts of the batch, by pairs, with folded channels."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnlab.layers import dense_convolution
from cnnlab.layers.dense_convolution import _images_of_a_part
from tests.layers.drawn import PARTS_OF_TWO
from tests.layers.test_dense_convolution import BFLOAT16, assert_close, lowered, normal, objective, ours, with_lax


@pytest.mark.parametrize("padding", [((1, 1), (1, 1)), ((0, 2), (3, 0)), ((0, 0), (-1, 2))], ids=str)
@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 4), (5, 5)], ids=str)
@pytest.mark.parametrize("batch", [3, 21])  # the second in parts
def test_a_weight_gradient_by_pairs_of_columns_is_that_of_lax(
    batch: int, kernel_size: Any, padding: Any, parts_of_two: None, monkeypatch: Any
) -> None:
    monkeypatch.setattr(dense_convolution, "_threads", lambda: 1)
    width = 8 + kernel_size[1] - 1 - sum(padding[1])  # of 8 columns of the output
    inputs, kernel = normal((batch, 6, width, 3), (*kernel_size, 3, 10))
    gradients = [jax.grad(objective(functools.partial(f, padding=padding)), 1) for f in (ours, with_lax)]
    program = lowered("cpu", gradients[0], inputs.shape, kernel.shape)
    assert f"tensor<{kernel_size[0]}x{kernel_size[1] + 1}x3x20xf32>" in program
    assert_close(*(jax.jit(g)(inputs, kernel) for g in gradients))


# Odd sizes leave a rest; 8 images of 32 x 32 pixels and 64 channels are a part.
@pytest.mark.parametrize(
    ("batch", "side", "channels", "options"),
    [
        (21, 32, 64, {}),
        (16, 32, 64, {"strides": (2, 2)}),
        (37, 20, 24, {"rhs_dilation": (2, 2)}),
        (40, 16, 40, {"lhs_dilation": (2, 1)}),
        (37, 20, 130, {}),
    ],
)
def test_a_weight_gradient_that_goes_through_the_batch_in_parts_is_that_of_lax(
    batch: int, side: int, channels: int, options: dict[str, Any]
) -> None:
    inputs, kernel = normal((batch, side, side, 8), (3, 3, 8, channels))
    options = {"padding": ((1, 1), (1, 0)), **options}
    gradients = [jax.grad(objective(functools.partial(f, **options)), 1) for f in (ours, with_lax)]
    shape = jax.eval_shape(functools.partial(ours, **options), inputs, kernel).shape
    for fold in (False, True):
        assert _images_of_a_part(shape, 4, fold) < batch, "it has to be cut for this test to say anything"
    ours_now, theirs = (jax.jit(g)(inputs, kernel) for g in gradients)
    assert_close(ours_now, theirs)


@pytest.fixture
def parts_of_two(monkeypatch: Any) -> None:
    for name, value in PARTS_OF_TWO.items():
        monkeypatch.setattr(dense_convolution, name, value)


@pytest.mark.parametrize(
    "transform",
    [
        lambda f, *arrays: jax.jvp(jax.grad(f, (0, 1)), arrays, arrays),
        lambda f, *arrays: jax.grad(lambda x, w: sum(jnp.sin(g).sum() for g in jax.grad(f, (0, 1))(x, w)), (0, 1))(
            *arrays
        ),
        lambda f, x, w: jax.vmap(jax.grad(f, 1), (0, None))(jnp.stack([x, 2 * x]), w),
        lambda f, x, w: jax.vmap(jax.grad(f, 1))(jnp.stack([x, 2 * x]), jnp.stack([w, 3 * w])),
    ],
    ids=["forward over reverse", "reverse over reverse", "vmap over images", "vmap over both"],
)
@pytest.mark.parametrize("out_channels", [4, 18], ids=["plain", "folded"])
def test_parts_of_the_batch_have_every_derivative_that_lax_has(
    out_channels: int, transform: Callable, parts_of_two: None
) -> None:
    arrays = normal((7, 6, 5, 3), (3, 3, 3, out_channels))
    found, expected = (jax.jit(functools.partial(transform, objective(conv)))(*arrays) for conv in (ours, with_lax))
    assert_close(found, expected)


def test_parts_of_the_batch_are_added_in_float32(parts_of_two: None) -> None:
    inputs, kernel = normal((256, 3, 3, 2), (1, 1, 2, 2), dtype=jnp.bfloat16)
    ones = jnp.abs(inputs)  # so that the sum grows, and a part of it falls below its last bit

    def total(conv: Callable, inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.grad(lambda w: conv(inputs, w, padding=((0, 0), (0, 0))).astype(jnp.float32).sum())(kernel)

    found = jax.jit(functools.partial(total, ours))(ones, kernel)
    expected = total(with_lax, ones.astype(jnp.float32), kernel.astype(jnp.float32))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), expected, rtol=BFLOAT16)


def test_a_part_of_the_batch_leaves_a_panel_of_64_channels_in_the_cache() -> None:
    assert _images_of_a_part((128, 8, 8, 64), 4, False) == 16  # 16 images * 8 * 8 pixels * 64 channels * 4 = 256 KiB
    assert _images_of_a_part((128, 8, 8, 512), 4, False) == 16  # further channels are further panels
    assert _images_of_a_part((128, 8, 8, 64), 2, False) == 32
    assert _images_of_a_part((128, 4, 4, 64), 4, True) == 32  # half as much
    assert _images_of_a_part((128, 224, 224, 64), 4, False) == 8  # fewer are slow, whatever the cache holds
    assert _images_of_a_part((31, 8, 8, 64), 4, False) == 31  # not two whole parts: one


# strides, padding, dilation of the inputs, dilation of the kernel
FOLDED: dict[str, dict[str, Any]] = {
    "by one": {},
    "in steps": {"strides": (2, 3)},
    "more on one side": {"padding": ((2, 0), (0, 1))},
    "cropped": {"padding": ((0, 1), (-1, 2))},
    "dilated rows of the kernel": {"rhs_dilation": (2, 1)},
    "dilated inputs": {"lhs_dilation": (2, 3), "strides": (1, 2)},
}


@pytest.mark.parametrize("batch", [3, 8])  # one part, and four
@pytest.mark.parametrize(
    ("kernel_size", "options"),
    [((3, 3), options) for options in FOLDED.values()] + [((1, 1), FOLDED["in steps"]), ((2, 5), FOLDED["cropped"])],
    ids=[*FOLDED, "1x1 in steps", "2x5 cropped"],
)
def test_a_weight_gradient_with_folded_channels_is_that_of_lax(
    options: dict[str, Any], kernel_size: Any, batch: int, parts_of_two: None
) -> None:
    inputs, kernel = normal((batch, 8, 9, 3), (*kernel_size, 3, 18))
    gradients = [jax.grad(objective(functools.partial(f, **options)), 1) for f in (ours, with_lax)]
    assert folded_rows(gradients[0], inputs, kernel) == {3 * (1 if kernel_size[1] == 1 else kernel_size[1])}
    assert_close(*(jax.jit(g)(inputs, kernel) for g in gradients))


def folded_rows(function: Callable, *arrays: jax.Array) -> set[int]:
    """Columns of the outputs `[1, kernel_height, kernel_width * in_channels, 18]` of folded weight gradients."""
    program = lowered("cpu", function, *(x.shape for x in arrays))
    return {int(n) for n in re.findall(r"stablehlo.convolution.*-> tensor<1x\d+x(\d+)x18xf32>", program)}


@pytest.mark.parametrize(("out_channels", "folds"), [(16, False), (17, True), (127, True), (128, False)])
def test_channels_choose_the_form_of_the_weight_gradient(out_channels: int, folds: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(dense_convolution, "_threads", lambda: 2)
    program = lowered("cpu", jax.grad(objective(ours), 1), (2, 4, 4, 3), (3, 3, 3, out_channels))
    assert (f"tensor<1x3x9x{out_channels}xf32>" in program) == folds


def test_a_kernel_dilated_along_the_rows_has_no_folded_form() -> None:
    inputs, kernel = normal((3, 8, 9, 3), (3, 3, 3, 18))
    gradients = [jax.grad(objective(functools.partial(f, rhs_dilation=(1, 2))), 1) for f in (ours, with_lax)]
    assert not folded_rows(gradients[0], inputs, kernel)
    assert_close(*(jax.jit(g)(inputs, kernel) for g in gradients))
