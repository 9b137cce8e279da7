"""Convolutions by transformed tiles against the oracle: values, derivatives, `vmap`, the choice by shape."""

from functools import partial
from random import Random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from jax import lax

from cnnlab.layers import dense_convolution, winograd
from cnnlab.layers.dense_convolution import dense_conv
from cnnlab.layers.winograd import (
    gradient_of_kernel_pays,
    images_of_a_part,
    winograd_conv,
    winograd_gradient_of_kernel,
    winograd_pays,
)
from cnnlab.training.epoch import fast_in_loops
from tests.layers import lax_oracle as oracle
from tests.layers.drawn import assert_same, seeds, two
from tests.layers.test_dense_convolution import (
    FLOAT32,
    assert_close,
    convolutions,
    lowered,
    normal,
    objective,
    ours,
    with_lax,
)

LARGE = ((8, 16, 16, 128), (3, 3, 128, 128))


@pytest.fixture
def always(monkeypatch: Any) -> None:
    """Every size goes by transformed tiles, two images of four tiles and three channels at a time."""
    take_all(monkeypatch)


def take_all(patch: Any) -> None:
    for name in ("_FEWEST_CHANNELS", "_FEWEST_PAIRS_OF_CHANNELS", "_FEWEST_TILES", "_FEWEST_MULTIPLY_ADDS"):
        patch.setattr(winograd, name, 1)
    patch.setattr(winograd, "_MOST_OF_AN_IMAGE", 2**30)
    patch.setattr(winograd, "_BYTES_OF_A_PLACE", 2 * 4 * 3 * 4)


@settings(max_examples=12)
@given(seeds)
def test_value_and_gradients_of_any_size_padding_and_batch_are_those_of_lax(seed: int) -> None:
    random = Random(seed)
    images = random.randint(1, 2), *two(random, 1, 5), random.randint(1, 4)
    kernel = 3, 3, images[3], random.randint(1, 4)
    padding = [two(random, 0, 3) for _ in range(2)]
    out = [n + sum(pads) - 2 for n, pads in zip(images[1:3], padding, strict=True)]
    assume(min(out) > 0)
    shapes = (images[0], *out, kernel[3]), images, kernel
    with pytest.MonkeyPatch.context() as patch:
        take_all(patch)
        patch.setattr(winograd, "_BYTES_OF_A_PLACE", random.choice([1, 2**19]))  # an image at a time, or all
        assert not convolutions(lowered("cpu", partial(ours, padding=padding), images, kernel))
        assert_same(
            partial(ours, padding=padding), partial(oracle.convolution, padding=padding), shapes, jnp.float32, 0
        )


# In the third and fourth the gradient of the inputs crops; in the first two the convolution itself does.
@pytest.mark.parametrize(
    "padding", [((1, -1), (0, 0)), ((2, 1), (3, -1)), ((0, 3), (1, 1)), ((1, 1), (0, 5)), ((3, 0), (1, 1))], ids=str
)
def test_what_crops_on_one_side_alone_stays_a_convolution(padding: Any, always: None) -> None:
    inputs, kernel = normal((2, 6, 5, 3), (3, 3, 3, 3))
    run = [jax.jit(jax.value_and_grad(objective(partial(f, padding=padding)), (0, 1))) for f in (ours, with_lax)]
    assert_close(*(f(inputs, kernel) for f in run))
    crops = min(map(min, padding)) < 0
    text = lowered("cpu", partial(ours, padding=padding), inputs.shape, kernel.shape)
    assert len(convolutions(text)) == crops


@pytest.mark.parametrize("batch", [2, 4, 5, 7])  # whole, two parts, and a rest
def test_the_batch_is_taken_in_parts_with_a_rest(batch: int, always: None) -> None:
    inputs, kernel = normal((batch, 4, 4, 3), (3, 3, 3, 3))
    text = lowered("cpu", partial(dense_conv, padding=((1, 1), (1, 1))), inputs.shape, kernel.shape)
    assert ("stablehlo.while" in text) == (batch >= 4)
    values = [jax.jit(jax.value_and_grad(objective(f), (0, 1)))(inputs, kernel) for f in (ours, with_lax)]
    assert_close(*values)


def test_derivatives_of_second_and_of_mixed_order_are_those_of_lax(always: None) -> None:
    inputs, kernel = normal((3, 5, 4, 2), (3, 3, 2, 3))

    def derivatives(conv: Any) -> Any:
        f = objective(conv)
        gradient = jax.grad(f, (0, 1))

        def program() -> Any:
            over_reverse = jax.jvp(gradient, (inputs, kernel), (inputs, kernel))
            of_weights = jax.grad(lambda w: (gradient(inputs, w)[1] ** 2).sum())(kernel)
            of_images = jax.grad(lambda x: (gradient(x, kernel)[0] ** 2).sum())(inputs)
            of_weights_by_images = jax.grad(lambda w: (gradient(inputs, w)[0] ** 2).sum())(kernel)
            return over_reverse, of_weights, of_images, of_weights_by_images

        # It runs for a millisecond: LLVM need not try hard.
        return jax.jit(program, compiler_options={"xla_backend_optimization_level": 0})()

    assert_close(derivatives(ours), derivatives(with_lax), 10 * FLOAT32)  # sums of sums


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)])
def test_under_vmap_the_gradients_are_those_of_lax(axes: Any, always: None) -> None:
    arrays = normal((4, 4, 4, 3), (3, 3, 3, 3))
    arrays = [a if axis is None else jnp.stack([a, 2 * a]) for a, axis in zip(arrays, axes, strict=True)]
    results = [jax.jit(jax.vmap(jax.grad(objective(f), (0, 1)), axes))(*arrays) for f in (ours, with_lax)]
    assert_close(*results)


def test_a_loop_of_steps_has_no_convolution_and_dispatches_many_of_them() -> None:
    def train(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        return lax.fori_loop(0, 3, lambda _, w: w - 1e-4 * jax.grad(objective(ours), 1)(inputs, w), kernel)

    text = lowered("cpu", train, *LARGE)
    assert not convolutions(text) and fast_in_loops(text)


def test_on_cuda_and_on_several_devices_the_convolutions_stay(monkeypatch: Any) -> None:
    gradient = lambda x, w: jax.grad(objective(ours), (0, 1))(x, w)  # noqa: E731
    assert len(convolutions(lowered("cuda", gradient, *LARGE))) == 3 and not convolutions(
        lowered("cpu", gradient, *LARGE)
    )
    monkeypatch.setattr(dense_convolution, "several_devices", lambda: True)
    assert len(convolutions(lowered("cpu", lambda x, w: gradient(x, w), *LARGE))) >= 3


SAME = ((1, 1), (1, 1))
CASES = {
    # (inputs, kernel, padding, type) -> whether that pays for the convolution, and for the gradient of its kernel
    (*LARGE, SAME, "float32"): (True, True),
    (*LARGE, SAME, "bfloat16"): (False, False),
    (*LARGE, ((-1, 1), (1, 1)), "float32"): (False, False),
    ((8, 16, 16, 128), (5, 5, 128, 128), SAME, "float32"): (False, False),
    ((8, 16, 16, 128), (1, 1, 128, 128), SAME, "float32"): (False, False),
    ((32, 16, 16, 64), (3, 3, 64, 64), SAME, "float32"): (True, False),
    ((8, 16, 16, 64), (3, 3, 64, 64), SAME, "float32"): (False, False),  # little work
    ((8, 16, 16, 64), (3, 3, 64, 256), SAME, "float32"): (True, True),
    ((8, 16, 16, 48), (3, 3, 48, 512), SAME, "float32"): (True, True),
    ((8, 16, 16, 47), (3, 3, 47, 512), SAME, "float32"): (False, False),
    ((8, 128, 128, 64), (3, 3, 64, 64), SAME, "float32"): (True, False),
    ((8, 130, 130, 64), (3, 3, 64, 64), SAME, "float32"): (False, False),  # an image is too large
    ((8, 16, 16, 32), (3, 3, 32, 256), SAME, "float32"): (False, False),
    ((3, 8, 8, 512), (3, 3, 512, 512), SAME, "float32"): (False, False),
    ((4, 8, 8, 512), (3, 3, 512, 512), SAME, "float32"): (True, True),
    ((4, 9, 9, 512), (3, 3, 512, 512), ((0, 0), (0, 0)), "float32"): (True, True),
    ((1, 1, 1, 512), (3, 3, 512, 512), SAME, "float32"): (False, False),
    ((1, 2, 2, 512), (3, 3, 512, 512), SAME, "float32"): (True, True),
    ((1, 3, 2, 512), (3, 3, 512, 512), SAME, "float32"): (False, False),
}


@pytest.mark.parametrize(("case", "expected"), CASES.items(), ids=str)
def test_type_kernel_channels_and_tiles_decide(case: Any, expected: tuple[bool, bool]) -> None:
    *shapes, dtype = case
    found = [pays(*shapes, jnp.dtype(dtype)) for pays in (winograd_pays, gradient_of_kernel_pays)]
    assert tuple(found) == expected


@pytest.mark.parametrize(
    ("batch", "side", "channels", "part"),
    [(32, 32, 64, 8), (32, 16, 128, 16), (32, 8, 256, 32), (50, 16, 128, 10), (37, 16, 128, 16), (31, 16, 128, 31)],
)
def test_a_part_fills_a_place_and_leaves_no_rest_where_that_can_be(
    batch: int, side: int, channels: int, part: int
) -> None:
    assert images_of_a_part(batch, (side, side), (3, 3, channels, 64)) == part


@pytest.mark.parametrize("options", [{"strides": (2, 1)}, {"lhs_dilation": (1, 2)}, {"rhs_dilation": (2, 2)}], ids=str)
def test_strides_and_dilations_stay_convolutions(options: dict[str, Any]) -> None:
    assert convolutions(lowered("cpu", partial(ours, **options), *LARGE))


def test_rounding_errors_are_of_the_size_of_those_of_lax() -> None:
    inputs, kernel, direction = normal((4, 8, 8, 64), (3, 3, 64, 64), (4, 8, 8, 64))
    inputs = jnp.abs(inputs)  # as after ReLU: sums grow
    exact = [np.asarray(x, np.float64) for x in (inputs, kernel, direction)]
    padded = np.pad(exact[0], ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.stack([padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], 3)  # [n, h, w, 9, c]
    value = np.einsum("nhwkc,kco->nhwo", windows, exact[1].reshape(9, 64, 64), optimize=True)
    of_kernel = np.einsum("nhwkc,nhwo->kco", windows, exact[2], optimize=True).reshape(kernel.shape)
    found = jax.jit(partial(winograd_conv, padding=SAME))(inputs, kernel)
    of_kernel_found = jax.jit(partial(winograd_gradient_of_kernel, padding=SAME))(inputs, direction)
    theirs, pull = jax.vjp(partial(with_lax, inputs), kernel)
    for ours_now, of_lax, want in ((found, theirs, value), (of_kernel_found, *pull(direction), of_kernel)):
        errors = [np.sqrt(np.mean((np.asarray(x, np.float64) - want) ** 2)) for x in (ours_now, of_lax)]
        assert 0 < errors[0] <= 2 * errors[1]
