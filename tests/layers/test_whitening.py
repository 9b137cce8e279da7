"""Filters that whiten patches, and filters that copy their input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.layers import Conv, fan_in_uniform, identity_filters, patch_whitening_filters


def smooth_images(count: int = 40, side: int = 9, channels: int = 3) -> np.ndarray:
    """Images whose neighbouring pixels and channels resemble each other, with a mean that is not zero."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, side + 2, side + 2, channels))
    images = images[:, 1:, 1:] + images[:, :-1, 1:] + images[:, 1:, :-1]
    images += images.mean(axis=-1, keepdims=True)
    return (images[:, :side, :side] + 0.5).astype(np.float32)


def patches_of(images: np.ndarray, size: int) -> np.ndarray:
    """All patches as rows, in float64, cut one by one."""
    side = images.shape[1] - size + 1
    cut = [image[i : i + size, j : j + size].ravel() for image in images for i in range(side) for j in range(side)]
    return np.array(cut, np.float64)


@pytest.mark.parametrize(("size", "channels"), [(2, 3), (3, 1)])
def test_answers_to_patches_are_uncorrelated_and_equally_strong(size: int, channels: int) -> None:
    images = smooth_images(channels=channels)
    eps = 1e-6
    filters = np.asarray(patch_whitening_filters(images, size, eps=eps), np.float64)
    patches = patches_of(images, size)
    half = size * size * channels
    assert filters.shape == (size, size, channels, 2 * half)
    answers = patches @ filters.reshape(half, -1)[:, :half]
    moments = answers.T @ answers / len(patches)
    # float32 eigenvectors; the patches themselves are far from this.
    np.testing.assert_allclose(moments, np.eye(half), rtol=0, atol=2e-3)
    raw = patches.T @ patches / len(patches)
    assert np.abs(raw - np.eye(half)).max() > 1


def test_eps_bounds_the_strength_of_answers_as_the_formula_says() -> None:
    images, eps = smooth_images(), 0.7
    filters = np.asarray(patch_whitening_filters(images, eps=eps), np.float64).reshape(12, 24)[:, :12]
    patches = patches_of(images, 2)
    eigenvalues = np.linalg.eigvalsh(patches.T @ patches / len(patches))[::-1]
    answers = patches @ filters
    strength = np.diag(answers.T @ answers / len(patches))
    np.testing.assert_allclose(strength, eigenvalues / (eigenvalues + eps), rtol=1e-4)


def test_the_second_half_of_the_filters_is_the_first_with_the_sign_changed() -> None:
    filters = np.asarray(patch_whitening_filters(smooth_images()))
    np.testing.assert_array_equal(filters[..., 12:], -filters[..., :12])
    assert np.abs(filters[..., :12]).max() > 0


def test_images_that_hold_no_patch_are_an_error() -> None:
    with pytest.raises(ValueError, match="Expected images of at least 3 pixels to whiten, got 2 x 5; do lower"):
        patch_whitening_filters(jnp.zeros((1, 2, 5, 3)), 3)


def test_identity_filters_copy_the_channels_of_images() -> None:
    conv = Conv(3, 8, 3, padding="SAME", use_bias=False, kernel_init=identity_filters(), rngs=nnx.Rngs(0))
    images = np.random.default_rng(0).random((2, 6, 6, 3), dtype=np.float32)
    answers = np.asarray(conv(images))
    # Products with exact ones and zeros.
    np.testing.assert_allclose(answers[..., :3], images, rtol=0, atol=1e-6)
    assert np.abs(answers[..., 3:6] - images).max() > 0.1


def test_identity_filters_leave_the_other_filters_as_they_were() -> None:
    key, shape = jax.random.key(3), (3, 3, 4, 10)
    ours, plain = (np.asarray(init(key, shape, jnp.float32)) for init in (identity_filters(), fan_in_uniform))
    np.testing.assert_array_equal(ours[..., 4:], plain[..., 4:])
    # As in PyTorch: uniform up to one over the root of 3 * 3 * 4 inputs; its standard deviation is that over root 3.
    assert np.abs(plain).max() <= 1 / 6
    np.testing.assert_allclose(plain.std(), 1 / 6 / np.sqrt(3), rtol=0.1)  # 360 draws


def test_identity_filters_with_more_inputs_than_filters_copy_the_first_channels() -> None:
    kernel = np.asarray(identity_filters()(jax.random.key(0), (3, 3, 5, 2), jnp.float32))
    expected = np.zeros((3, 3, 5, 2))
    expected[1, 1, 0, 0] = expected[1, 1, 1, 1] = 1
    np.testing.assert_array_equal(kernel, expected)


def test_identity_filters_are_for_convolutions() -> None:
    with pytest.raises(ValueError, match=r"Expected a kernel \[height, width, in, out\], got shape \(4, 5\)"):
        identity_filters()(jax.random.key(0), (4, 5), jnp.float32)
