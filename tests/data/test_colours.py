"""Colours of training images against NumPy over all pixels at once."""

import numpy as np
import pytest

from cnnlab.data import Split, colours, mean_colour, principal_colours

FLOAT64 = 1e-12


@pytest.fixture
def images() -> np.ndarray:
    """500 images whose channels depend on each other."""
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 156, (500, 4, 6, 1))
    return (grey + rng.integers(0, 100, (500, 4, 6, 3)) * np.asarray([1, 0.5, 0.2])).astype(np.uint8)


@pytest.mark.parametrize("pixels", [1, 24 * 7, 1 << 18])
def test_mean_and_principal_colours_are_those_of_all_pixels(images, monkeypatch, pixels):
    monkeypatch.setattr(colours, "_PIXELS", pixels)  # of a chunk: less than an image, seven images, all
    values = images.reshape(-1, 3) / 255
    np.testing.assert_allclose(mean_colour(images), values.mean(axis=0), rtol=FLOAT64)
    found = principal_colours(images)
    # Each row is an eigenvector of the covariance, as long as its eigenvalue.
    lengths = np.linalg.norm(found, axis=1)
    covariance = np.cov(values.T, bias=True)
    np.testing.assert_allclose(found @ covariance, lengths[:, None] * found, rtol=1e-9, atol=FLOAT64)
    np.testing.assert_allclose(lengths.sum(), values.var(axis=0).sum(), rtol=1e-9)
    assert np.all(np.diff(lengths) < 0) and np.linalg.matrix_rank(found) == 3
    assert np.all(np.take_along_axis(found, np.abs(found).argmax(axis=1, keepdims=True), axis=1) > 0)


def test_a_worked_example():
    """Red 0 or 1, all else black: variance 1 / 4 along red, none elsewhere."""
    images = np.zeros((2, 1, 1, 3), np.uint8)
    images[0, ..., 0] = 255
    np.testing.assert_allclose(mean_colour(images), [0.5, 0, 0], atol=FLOAT64)
    np.testing.assert_allclose(principal_colours(images)[0], [0.25, 0, 0], atol=FLOAT64)
    np.testing.assert_allclose(principal_colours(images)[1:], 0, atol=FLOAT64)


def test_a_split_and_one_channel_will_do(images):
    split = Split(images[..., :1], np.zeros(500, np.int32))
    assert mean_colour(split).shape == (1,)
    np.testing.assert_allclose(principal_colours(split), [[(images[..., 0] / 255).var()]], rtol=FLOAT64)
