"""Standardisation inside the network: the formula, and that training leaves its numbers alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.layers import Standardized

# One subtraction and one division in float32.
FLOAT32 = 1e-6

MEAN, STD = (0.49, 0.48, 0.45), (0.2470, 0.2435, 0.2616)


class Pixels(nnx.Module):
    """Returns what it is given, as logits and (twice that) as features; one weight of one."""

    def __init__(self) -> None:
        self.weight = nnx.Param(jnp.ones(()))

    def features(self, images: jax.Array) -> jax.Array:
        return 2 * images

    def __call__(self, images: jax.Array) -> jax.Array:
        return images * self.weight[...].reshape((1,) * images.ndim)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((5, 4, 6, 3), dtype=np.float32)


def test_the_network_sees_images_minus_mean_over_std_per_channel(images: np.ndarray) -> None:
    model = Standardized(Pixels(), MEAN, STD)
    expected = (images - np.asarray(MEAN)) / np.asarray(STD)
    np.testing.assert_allclose(model(images), expected, rtol=FLOAT32, atol=FLOAT32 * np.abs(expected).max())
    np.testing.assert_array_equal(model.features(images), 2 * model(images))
    np.testing.assert_array_equal(model(images[0]), model(images)[0])


def test_with_the_statistics_of_the_images_every_channel_has_mean_zero_and_std_one(images: np.ndarray) -> None:
    model = Standardized(Pixels(), images.mean((0, 1, 2)).tolist(), images.std((0, 1, 2)).tolist())
    seen = np.asarray(model(images), np.float64)
    # Rounding of the mean, divided by a std of about 0.3.
    np.testing.assert_allclose(seen.mean((0, 1, 2)), 0, atol=10 * FLOAT32)
    np.testing.assert_allclose(seen.std((0, 1, 2)), 1, rtol=10 * FLOAT32)


def test_mean_zero_and_std_one_change_nothing(images: np.ndarray) -> None:
    np.testing.assert_array_equal(Standardized(Pixels(), (0, 0, 0), (1, 1, 1))(images), images)


def test_one_channel_works(images: np.ndarray) -> None:
    grey = images[..., :1]
    np.testing.assert_allclose(Standardized(Pixels(), (0.5,), (0.25,))(grey), (grey - 0.5) * 4, rtol=FLOAT32)


def test_mean_and_std_are_no_parameters_and_get_no_gradient(images: np.ndarray) -> None:
    model = Standardized(Pixels(), MEAN, STD)
    trained = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    assert trained.keys() == {"network"}
    gradient = nnx.grad(lambda model: model(images).sum())(model)
    assert nnx.to_pure_dict(gradient).keys() == {"network"}
    saved = nnx.to_pure_dict(nnx.state(model, nnx.Not(nnx.Param)))
    np.testing.assert_array_equal(saved["mean"], np.asarray(MEAN, np.float32))
    np.testing.assert_array_equal(saved["std"], np.asarray(STD, np.float32))


def test_the_numbers_travel_with_the_state(images: np.ndarray) -> None:
    source, target = Standardized(Pixels(), MEAN, STD), Standardized(Pixels(), (0, 0, 0), (1, 1, 1))
    nnx.update(target, nnx.state(source))
    np.testing.assert_array_equal(target(images), source(images))


@pytest.mark.parametrize(("mean", "std"), [((0.5,), (0.2, 0.2)), ((0.5, 0.5), (0.2, 0.0)), ((0.5,), (-1.0,))])
def test_impossible_numbers_are_errors(mean: tuple, std: tuple) -> None:
    with pytest.raises(ValueError, match="Expected one mean and one positive std per channel, got"):
        Standardized(Pixels(), mean, std)
