"""Convolutions of drawn shapes, options, groups and types against `jax.lax` in float32: values and both gradients."""

from functools import partial
from random import Random
from typing import Any

import jax.numpy as jnp
import pytest
from hypothesis import assume, given, settings

from cnnlab.layers import conv_general_dilated, dense_convolution
from cnnlab.layers.block_convolution import choose_block
from cnnlab.layers.dense_convolution import dense_conv
from tests.layers import lax_oracle as oracle
from tests.layers.drawn import (
    FLOATS,
    PARTS_OF_TWO,
    assert_same,
    lowered_for_cpu,
    parts_of_gradients,
    seeds,
    sound_pads,
    two,
)
from tests.layers.lax_oracle import ONE, pads_of


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "strides", "pads"),
    [
        ((5, 5, 7, 8), ONE, (-1, 1)),
        ((5, 5, 16, 8), ONE, (-1, 1)),
        ((3, 3, 3, 4), (2, 2), (-1, 1)),
        ((5, 5, 7, 8), ONE, (5, 3)),
    ],
    ids=str,
)
def test_nothing_is_read_beside_images_that_are_cropped_on_one_side(
    kernel: Any, strides: Any, pads: Any, threads: int, monkeypatch: Any
) -> None:
    monkeypatch.setattr(dense_convolution, "_threads", lambda: threads)
    images, padding = (2, 7, 7, kernel[2]), (pads, pads)
    out = [(7 + sum(pads) - k) // s + 1 for k, s in zip(kernel[:2], strides, strict=True)]
    options = {"strides": strides, "padding": padding}
    shapes = (2, *out, kernel[3]), images, kernel
    assert_same(partial(dense_conv, **options), partial(oracle.convolution, **options), shapes, jnp.float32, 0)


def draw(random: Random, in_channels: int, out_channels: int, groups: int = 1, batch: int = 2) -> tuple[Any, Any, Any]:
    """Shapes of images and kernel, and any options of a convolution, its padding in numbers or by name."""
    images = batch, *two(random, 1, 5), in_channels * groups
    kernel = *two(random, 1, 3), in_channels, out_channels * groups
    strides = random.choice([ONE, (2, 2), (3, 1), (1, 2)])
    lhs_dilation, rhs_dilation = random.choice([ONE, ONE, (2, 1)]), random.choice([ONE, (1, 2), (2, 2)])
    named = random.choice(["SAME", "VALID", "in numbers"]) if lhs_dilation == ONE else "in numbers"
    if named == "in numbers":
        sizes = zip(kernel[:2], rhs_dilation, strict=True)
        # groups are lax's own convolution
        named = [two(random, -2, 3) if groups == 1 else sound_pads(random, k, d) for k, d in sizes]
    options = {"strides": strides, "padding": named, "lhs_dilation": lhs_dilation, "rhs_dilation": rhs_dilation}
    return images, kernel, options


def in_numbers(images: Any, kernel: Any, options: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    """The options with the padding in numbers, and height and width of the output, which has to have some pixels."""
    window = [(k - 1) * d + 1 for k, d in zip(kernel[:2], options["rhs_dilation"], strict=True)]
    dilated = [(n - 1) * d + 1 for n, d in zip(images[1:3], options["lhs_dilation"], strict=True)]
    padding = pads_of(dilated, window, options["strides"], options["padding"])
    sides = zip(dilated, padding, window, options["strides"], strict=True)
    out = [(n + sum(pad) - k) // s + 1 for n, pad, k, s in sides]
    assume(min(out) > 0)
    return {**options, "padding": tuple(map(tuple, padding))}, out


@pytest.mark.parametrize("grouped", [pytest.param(True, id="groups"), pytest.param(False, id="dense")])
@settings(max_examples=7)
@given(seeds)
def test_convolution_with_any_options_is_that_of_lax(grouped: bool, seed: int) -> None:
    random = Random(seed)
    groups, channels = (random.choice([2, 5]), [1, 2, 4]) if grouped else (1, [1, 3, 9, 17, 20])
    drawn = draw(random, random.choice(channels), random.choice(channels), groups, random.randint(1, 2))
    images, kernel, options = drawn
    known, out = in_numbers(*drawn)
    ours = partial(
        conv_general_dilated, feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"), **options
    )
    theirs = partial(oracle.convolution, groups=groups, **known)
    by_blocks = not grouped and all(known[name] == ONE for name in ("strides", "lhs_dilation", "rhs_dilation"))
    parts = parts_of_gradients(choose_block(images, kernel, known["padding"]) if by_blocks else None, kernel)
    with pytest.MonkeyPatch.context() as patch:  # threads choose the library, and with it the form
        threads = random.choice([1, 2])
        patch.setattr(dense_convolution, "_threads", lambda: threads)
        assert_same(ours, theirs, ((images[0], *out, kernel[-1]), images, kernel), random.choice(FLOATS[:2]), parts)


def by_steps_of_one(random: Random, in_channels: int, out_channels: int) -> tuple[Any, Any, Any]:
    """As `draw`, with neither strides nor dilation, and as many rows and columns after as before, columns even."""
    images = 2, random.randint(1, 5), random.choice([2, 4, 6]), in_channels
    kernel = random.randint(1, 3), 3, in_channels, out_channels
    above, before = random.randint(0, kernel[0] - 1), random.randint(0, 2)
    padding = (above, kernel[0] - 1 - above), (before, 2 - before)
    return images, kernel, {"strides": ONE, "padding": padding, "lhs_dilation": ONE, "rhs_dilation": ONE}


def pairs(random: Random) -> tuple[Any, int, str]:
    drawn = by_steps_of_one(random, random.randint(8, 16), random.randint(9, 16))
    rows, _, in_channels, out_channels = drawn[1]
    return drawn, 1, f"tensor<{rows}x4x{in_channels}x{2 * out_channels}xf32>"


def more_channels(random: Random) -> tuple[Any, int, str]:
    drawn = by_steps_of_one(random, random.randint(8, 16), random.randint(1, 8))
    return drawn, 1, f"tensor<{drawn[1][0]}x3x{drawn[1][2]}x17xf32>"


def one_more_row(random: Random) -> tuple[Any, int, str]:
    images, kernel, options = by_steps_of_one(random, *random.choice([(17, 9), (3, 20), (20, 12)]))
    below = random.randint(1, 2)  # and none above, so that the gradient of the images is padded otherwise
    kernel, options = (below + 1, *kernel[1:]), {**options, "padding": ((0, below), options["padding"][1])}
    return (images, kernel, options), 2, f"pad = [[0, {below + 1}], ["


def folded(random: Random) -> tuple[Any, int, str]:
    images, kernel, options = draw(random, random.choice([1, 3, 9]), random.randint(17, 20))
    rows, columns, in_channels, out_channels = kernel
    options = {**options, "rhs_dilation": random.choice([ONE, (2, 1)])}
    return (images, kernel, options), 2, f"-> tensor<1x{rows}x{columns * in_channels}x{out_channels}xf32>"


def parts_of_the_batch(random: Random) -> tuple[Any, int, str]:
    drawn = draw(random, random.choice([1, 3, 9]), random.choice([4, 12, 18]), batch=random.choice([4, 5]))
    return drawn, random.choice([1, 2]), "dynamic_slice"


LOWERINGS = {
    # what a drawn convolution is made of on CPU: shapes and options, threads, and the words by which a program shows it
    "pairs of columns": (pairs, FLOATS[:1]),
    "more channels": (more_channels, FLOATS[:1]),
    "one more row": (one_more_row, FLOATS[:1]),
    "folded weight gradient": (folded, FLOATS[:1]),
    "weight gradient in parts": (parts_of_the_batch, FLOATS[:2]),
}


@pytest.mark.parametrize(("lowering", "types"), LOWERINGS.values(), ids=LOWERINGS)
@settings(max_examples=6)
@given(seeds)
def test_each_lowering_of_a_dense_convolution_is_taken_and_is_that_of_lax(lowering: Any, types: Any, seed: int) -> None:
    random = Random(seed)
    drawn, threads, words = lowering(random)
    images, kernel, _ = drawn
    options, out = in_numbers(*drawn)
    ours, theirs = partial(dense_conv, **options), partial(oracle.convolution, **options)
    dtype, in_parts = random.choice(types), lowering is parts_of_the_batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dense_convolution, "_threads", lambda: threads)
        for name, value in PARTS_OF_TWO.items() if in_parts else ():
            patch.setattr(dense_convolution, name, value)
        assert words in lowered_for_cpu(ours, dtype, images, kernel)
        assert_same(ours, theirs, ((images[0], *out, kernel[-1]), images, kernel), dtype, 3 if in_parts else 0)
