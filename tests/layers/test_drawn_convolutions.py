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
from tests.layers.drawn import FLOATS, assert_same, parts_of_gradients, seeds, sound_pads, two
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


@settings(max_examples=18)
@given(seeds)
def test_convolution_with_any_options_and_groups_is_that_of_lax(seed: int) -> None:
    random = Random(seed)
    groups = random.choice([1, 1, 2, 5])
    channels = [1, 3, 9, 17, 20] if groups == 1 else [1, 2, 4]
    in_channels, out_channels = random.choice(channels), random.choice(channels)
    images = random.randint(1, 2), *two(random, 1, 5), in_channels * groups
    kernel = *two(random, 1, 3), in_channels, out_channels * groups
    strides = random.choice([ONE, (2, 2), (3, 1), (1, 2)])
    lhs_dilation, rhs_dilation = random.choice([ONE, ONE, (2, 1)]), random.choice([ONE, (1, 2), (2, 2)])
    named = random.choice(["SAME", "VALID", "in numbers"]) if lhs_dilation == ONE else "in numbers"
    if named == "in numbers":
        sizes = zip(kernel[:2], rhs_dilation, strict=True)
        # groups are lax's own convolution
        named = [two(random, -2, 3) if groups == 1 else sound_pads(random, k, d) for k, d in sizes]

    window = [(k - 1) * d + 1 for k, d in zip(kernel[:2], rhs_dilation, strict=True)]
    dilated = [(n - 1) * d + 1 for n, d in zip(images[1:3], lhs_dilation, strict=True)]
    padding = pads_of(dilated, window, strides, named)
    out = [(n + sum(pad) - k) // s + 1 for n, pad, k, s in zip(dilated, padding, window, strides, strict=True)]
    assume(min(out) > 0)
    dilations = {"lhs_dilation": lhs_dilation, "rhs_dilation": rhs_dilation}
    ours = partial(
        conv_general_dilated, strides=strides, padding=named, feature_group_count=groups, **dilations,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip
    theirs = partial(oracle.convolution, padding=padding, strides=strides, groups=groups, **dilations)
    by_blocks = groups == 1 and strides == lhs_dilation == rhs_dilation == ONE
    parts = parts_of_gradients(choose_block(images, kernel, padding) if by_blocks else None, kernel)
    with pytest.MonkeyPatch.context() as patch:  # threads choose the library, and with it the form
        threads = random.choice([1, 2])
        patch.setattr(dense_convolution, "_threads", lambda: threads)
        assert_same(ours, theirs, ((images[0], *out, kernel[-1]), images, kernel), random.choice(FLOATS[:2]), parts)
