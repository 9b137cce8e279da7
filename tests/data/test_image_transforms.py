"""Changes to images: each does what it says, against NumPy, by chance that a key decides alone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnlab.data import add_noise, cutout, fast_normal, normalize, pca_colour, random_crop, random_flip

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


def places(last: tuple[int, int], found: np.ndarray, expected) -> list[tuple[int, int]]:
    """For each found image, the one place (row, column) for which `expected(image number, row, column)` is it."""
    chosen = []
    for i, image in enumerate(found):
        options = [(r, c) for r in range(last[0] + 1) for c in range(last[1] + 1)]
        fits = [(r, c) for r, c in options if np.array_equal(expected(i, r, c), image)]
        assert len(fits) == 1
        chosen += fits
    return chosen


def assert_uniform(draws: np.ndarray, levels: int) -> None:
    """Each of `levels` values as often as the others, within 5 standard errors."""
    counts = np.bincount(draws, minlength=levels)
    assert len(counts) == levels
    share = 1 / levels
    assert np.abs(counts - len(draws) * share).max() < ERRORS * math.sqrt(len(draws) * share * (1 - share))


def test_normalising_takes_the_mean_off_and_divides(images: np.ndarray) -> None:
    mean, std = np.asarray([0.5, 0.25]), [0.25, 0.125]
    found = normalize(jnp.asarray(images), mean, std)
    np.testing.assert_allclose(found, (images - mean) / np.asarray(std), rtol=1e-5, atol=FLOAT32)
    assert found.dtype == jnp.float32
    np.testing.assert_array_equal(normalize(jnp.asarray(images), 0.0, 1.0), images)


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
    many = np.tile(images, (16, 1, 1, 1))
    found = np.asarray(random_flip(jnp.asarray(many), key))
    same = (found == many).all((1, 2, 3))
    mirrored = (found == many[:, :, ::-1]).all((1, 2, 3))
    assert np.all(same ^ mirrored)
    # Half of 1024, within 5 standard errors of 16.
    assert abs(int(mirrored.sum()) - 512) < ERRORS * 16


@pytest.mark.parametrize(("fill", "mode"), [("zero", "constant"), ("reflect", "reflect")])
def test_a_crop_is_a_window_of_the_padded_image(images: np.ndarray, key: jax.Array, fill: str, mode: str) -> None:
    pad = 2
    found = np.asarray(random_crop(jnp.asarray(images), key, pad, fill))
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode=mode)
    corners = places((2 * pad, 2 * pad), found, lambda i, r, c: padded[i, r : r + 5, c : c + 7])
    # 64 draws: each of the five offsets occurs (missing one: 5 * 0.8**64 = 3e-6), in either direction.
    assert {i for i, _ in corners} == {j for _, j in corners} == set(range(5))
    assert len(set(corners)) > 5  # the directions are drawn apart


def test_a_padding_larger_than_the_image_reflects_it_again_and_again(images: np.ndarray, key: jax.Array) -> None:
    pad = 11
    found = np.asarray(random_crop(jnp.asarray(images[:16, :1]), key, pad, "reflect"))  # [16, 1, 7, 2]
    padded = np.pad(images[:16, :1], ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    for crop, image in zip(found, padded, strict=True):
        assert any(np.array_equal(image[:1, j : j + 7], crop) for j in range(2 * pad + 1))
    assert len({crop.tobytes() for crop in found}) == 16


def test_a_crop_without_padding_is_the_image(images: np.ndarray, key: jax.Array) -> None:
    np.testing.assert_array_equal(random_crop(jnp.asarray(images), key, 0), images)


def test_every_window_is_as_likely(key: jax.Array) -> None:
    """Images that hold the number of each pixel tell where their window was; the place of one corner of 9."""
    many = jnp.broadcast_to(jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1), (9 * 400, 3, 3, 1))
    middle = np.asarray(random_crop(many, key, 1))[:, 1, 1, 0].astype(int) - 1
    assert_uniform(middle, 9)


@pytest.mark.parametrize("fill", [0.0, (0.25, 3.0)], ids=["zero", "colour"])
def test_a_cutout_erases_one_square_inside_the_image(images: np.ndarray, key: jax.Array, fill) -> None:
    def erased(i: int, row: int, column: int) -> np.ndarray:
        image = images[i].copy()
        image[row : row + 3, column : column + 3] = fill
        return image

    found = cutout(jnp.asarray(images), key, 3, fill)
    assert found.dtype == jnp.float32
    corners = places((2, 4), np.asarray(found), erased)
    assert {i for i, _ in corners} == set(range(3)) and {j for _, j in corners} == set(range(5))
    assert len(set(corners)) > 5  # the directions are drawn apart


def test_every_place_of_a_cutout_is_as_likely(key: jax.Array) -> None:
    found = np.asarray(cutout(jnp.ones((12 * 300, 4, 5, 1)), key, 2))
    first = (found[..., 0] == 0).reshape(len(found), -1).argmax(axis=1)  # the square's upper left pixel
    assert_uniform(first // 5 * 4 + first % 5, 3 * 4)


def test_a_cutout_of_no_pixel_or_of_all(images: np.ndarray, key: jax.Array) -> None:
    np.testing.assert_array_equal(cutout(jnp.asarray(images), key, 0, 9.0), images)
    assert np.all(np.asarray(cutout(jnp.asarray(images[:, :, :5]), key, 5, 9.0)) == 9)


def test_a_cutout_larger_than_the_image_is_an_error(images: np.ndarray, key: jax.Array) -> None:
    with pytest.raises(ValueError, match="Expected a cutout inside images of 5x7, got 6; do lower cutout."):
        jax.jit(lambda x: cutout(x, key, 6))(images)


def test_pca_colour_adds_one_colour_to_each_image_along_the_components(images: np.ndarray, key: jax.Array) -> None:
    components = np.asarray([[0.3, 0.4], [-0.02, 0.01]])
    found = pca_colour(jnp.asarray(images), key, components, 0.1)
    assert found.dtype == jnp.float32
    steps = 0.1 * np.asarray(fast_normal(key, (64, 2)), np.float64)
    np.testing.assert_allclose(found, images + (steps @ components)[:, None, None], rtol=0, atol=FLOAT32)
    np.testing.assert_array_equal(pca_colour(jnp.asarray(images), key, components, 0.0), images)


def test_the_steps_of_pca_colour_are_normal_and_of_its_scale(key: jax.Array) -> None:
    """Images of one black pixel become the colours; their coordinates along orthogonal components are the steps."""
    components = np.asarray([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [-0.5, 0.0, 1.0]])
    colours = np.asarray(pca_colour(jnp.zeros((4096, 1, 1, 3)), key, components, 0.1), np.float64).reshape(-1, 3)
    steps = colours @ np.linalg.inv(components) / 0.1
    assert np.abs(steps.mean(axis=0)).max() < ERRORS / math.sqrt(4096)
    # Variances are 1 with a variance of 2 / n, covariances 0 with one of 1 / n.
    assert np.abs(np.cov(steps.T) - np.eye(3)).max() < ERRORS * math.sqrt(2 / 4096)
