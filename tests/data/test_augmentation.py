"""Augmentation: each function does what it says, by chance that a key decides alone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnlab.data import add_noise, build_augmentation, fast_normal, random_crop, random_flip, to_float

# One product and one sum in float32.
FLOAT32 = 1e-6
ERRORS = 5  # standard errors of a statistic


@pytest.fixture
def key() -> jax.Array:
    return jax.random.fold_in(jax.random.key(0), 1)


@pytest.fixture
def images() -> np.ndarray:
    """64 images of 5 x 7, no two pixels of an image alike, none zero."""
    rng = np.random.default_rng(0)
    return np.stack([rng.permutation(5 * 7 * 2) + 1.0 for _ in range(64)]).reshape(64, 5, 7, 2).astype(np.float32) / 80


def test_to_float_brings_all_bytes_to_zero_to_one() -> None:
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    found = to_float(jnp.asarray(values))
    assert found.dtype == jnp.float32
    # XLA may multiply by the rounded 1 / 255 instead: one more rounding.
    np.testing.assert_allclose(found, values / 255, rtol=FLOAT32)
    assert (float(found.min()), float(found.max())) == (0, 1)


@pytest.mark.parametrize("scale", [0.01, 0.25])
def test_noise_has_the_scale_that_was_asked_for(images: np.ndarray, key: jax.Array, scale: float) -> None:
    large = np.tile(images, (8, 1, 1, 1))
    noise = (np.asarray(add_noise(jnp.asarray(large), key, scale), np.float64) - large) / scale
    assert abs(noise.mean()) < ERRORS / math.sqrt(noise.size)
    assert abs(noise.var() - 1) < ERRORS * math.sqrt(2 / noise.size)
    # Differences of float32 numbers near one, divided by the scale.
    expected = fast_normal(key, large.shape)
    np.testing.assert_allclose(noise, expected, rtol=0, atol=FLOAT32 / scale)


def test_every_image_of_a_batch_gets_noise_of_its_own(key: jax.Array) -> None:
    noise = np.asarray(add_noise(jnp.zeros((32, 4, 4, 3)), key, 1.0)).reshape(32, -1)
    assert len(np.unique(noise, axis=0)) == 32


def test_a_flip_leaves_each_image_or_mirrors_it_left_to_right(images: np.ndarray, key: jax.Array) -> None:
    found = np.asarray(random_flip(jnp.asarray(images), key))
    same = (found == images).all((1, 2, 3))
    mirrored = (found == images[:, :, ::-1]).all((1, 2, 3))
    assert np.all(same ^ mirrored)
    # Half of 64, within 5 standard errors of 4.
    assert abs(int(mirrored.sum()) - 32) < ERRORS * 4


def test_a_crop_is_a_window_of_the_padded_image(images: np.ndarray, key: jax.Array) -> None:
    pad = 2
    found = np.asarray(random_crop(jnp.asarray(images), key, pad))
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    corners = []
    for crop, image in zip(found, padded, strict=True):
        fits = [(i, j) for i in range(5) for j in range(5) if (image[i : i + 5, j : j + 7] == crop).all()]
        assert len(fits) == 1
        corners += fits
    # 64 draws: each of the five offsets occurs (missing one: 5 * 0.8**64 = 3e-6), in either direction.
    assert {i for i, _ in corners} == {j for _, j in corners} == set(range(5))
    assert len(set(corners)) > 5  # the directions are drawn apart


def test_a_crop_without_padding_is_the_image(images: np.ndarray, key: jax.Array) -> None:
    np.testing.assert_array_equal(random_crop(jnp.asarray(images), key, 0), images)


def test_neutral_values_change_nothing(images: np.ndarray, key: jax.Array) -> None:
    np.testing.assert_array_equal(build_augmentation()(jnp.asarray(images), key), images)
    neutral = build_augmentation(noise=0.0, flip=False, crop=0)
    np.testing.assert_array_equal(jax.jit(neutral)(images, key), images)


def test_the_chain_is_crop_then_flip_then_noise_each_with_a_key_of_its_own(images: np.ndarray, key: jax.Array) -> None:
    given = jnp.asarray(images)
    expected = random_crop(given, jax.random.fold_in(key, 0), 1)
    expected = random_flip(expected, jax.random.fold_in(key, 1))
    expected = add_noise(expected, jax.random.fold_in(key, 2), 0.1)
    np.testing.assert_array_equal(build_augmentation(noise=0.1, flip=True, crop=1)(given, key), expected)
    alone = add_noise(given, jax.random.fold_in(key, 0), 0.1)
    np.testing.assert_array_equal(build_augmentation(noise=0.1)(given, key), alone)


def test_the_key_alone_decides_compiled_or_not(images: np.ndarray, key: jax.Array) -> None:
    augment = build_augmentation(noise=0.1, flip=True, crop=2)
    compiled = jax.jit(augment)
    first = compiled(images, key)
    assert (first.shape, first.dtype) == (images.shape, jnp.float32)
    np.testing.assert_array_equal(first, compiled(images, key))
    np.testing.assert_allclose(first, augment(jnp.asarray(images), key), rtol=0, atol=FLOAT32)
    other = compiled(images, jax.random.fold_in(key, 1))
    assert np.mean(np.asarray(first) == np.asarray(other)) < 0.01


def test_images_that_are_floats_already_stay_as_they_are() -> None:
    images = jnp.asarray([[[[0.25]]]], jnp.bfloat16)
    assert to_float(images) is images
