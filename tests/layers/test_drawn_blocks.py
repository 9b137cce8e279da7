"""Convolutions by blocks, with max pooling, of drawn shapes and types against `jax.lax` in float32."""

from functools import partial
from random import Random

from hypothesis import assume, given, settings

from cnnlab.layers import conv_max_pool
from cnnlab.layers.block_convolution import choose_block, conv_by_blocks
from tests.layers.drawn import FLOATS, assert_same, parts_of_gradients, seeds, sound_pads, two
from tests.layers.lax_oracle import ONE, output_size, pads_of, pooled_convolution


def shapes_of(random: Random) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of images and kernel; half of them with more output channels, or inputs, than blocks are chosen for."""
    in_channels, out_channels = random.choice([1, 2, 3, 6, 20]), random.choice([1, 4, 16, 17, 20])
    return (random.randint(1, 2), *two(random, 1, 11), in_channels), (*two(random, 1, 5), in_channels, out_channels)


@settings(max_examples=12)
@given(seeds)
def test_blocks_are_the_convolution_of_lax_with_pooling(seed: int) -> None:
    random = Random(seed)
    shapes, padding = shapes_of(random), (two(random, -2, 3), two(random, -2, 3))
    pool, blocks = random.choice([(1, 1), (2, 2), (1, 3), (3, 2)]), two(random, 1, 3)
    pooled = [n // k for n, k in zip(output_size(*shapes, padding), pool, strict=True)]
    assume(min(pooled) > 0)
    # The image is so many blocks high and wide, or fewer; the last ones may be partly outside.
    p, q = (-(-n // count) * k for n, count, k in zip(pooled, blocks, pool, strict=True))
    ours = partial(conv_by_blocks, padding=padding, block=(p, q), pool=pool)
    theirs = partial(pooled_convolution, padding=padding, window=pool)
    out = (shapes[0][0], *pooled, shapes[1][-1])
    assert_same(ours, theirs, (out, *shapes), random.choice(FLOATS[:2]), parts_of_gradients((p, q), shapes[1]))


@settings(max_examples=12)
@given(seeds)
def test_convolution_with_pooling_is_that_of_lax(seed: int) -> None:
    random = Random(seed)
    shapes, window = shapes_of(random), random.choice([(1, 1), (2, 2), (1, 3), (3, 2), (5, 2)])
    images, kernel = shapes
    named = random.choice(["SAME", "VALID", [sound_pads(random, k) for k in kernel[:2]]])
    padding = pads_of(images[1:3], kernel[:2], ONE, named)
    pooled = [n // k for n, k in zip(output_size(*shapes, padding), window, strict=True)]
    assume(min(pooled) > 0)
    ours = partial(conv_max_pool, window=window, padding=named)
    theirs = partial(pooled_convolution, padding=padding, window=window)
    # Where there is no block of whole windows there may be one for the convolution alone.
    block = choose_block(*shapes, padding, window) or choose_block(*shapes, padding)
    out = (images[0], *pooled, kernel[-1])
    assert_same(ours, theirs, (out, *shapes), random.choice(FLOATS[:2]), parts_of_gradients(block, kernel))
