"""Test-time augmentation against the formula, view by view in NumPy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.data import Split
from cnnlab.evaluation import TestTimeAugmented, evaluate
from cnnlab.evaluation.evaluate import compute_logits


class PixelNetwork(nnx.Module):
    """Logits that depend on the place of every pixel, and not linearly."""

    def __init__(self, side: int = 6, classes: int = 4) -> None:
        rng = np.random.default_rng(1)
        self.weights = nnx.Param(jnp.asarray(rng.standard_normal((side * side * 3, classes)), jnp.float32))

    def __call__(self, images: jax.Array) -> jax.Array:
        return jnp.tanh(images.reshape(len(images), -1) @ self.weights[...])


def in_numpy(network: PixelNetwork, images: np.ndarray) -> np.ndarray:
    weights = np.asarray(network.weights[...], np.float64)
    return np.tanh(images.astype(np.float64).reshape(len(images), -1) @ weights)


def both_sides(network: PixelNetwork, images: np.ndarray) -> np.ndarray:
    return (in_numpy(network, images) + in_numpy(network, images[:, :, ::-1])) / 2


def random_images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).random((count, 6, 6, 3), dtype=np.float32)


def test_mirror_is_the_mean_of_the_image_and_its_mirror_image() -> None:
    network, images = PixelNetwork(), random_images()
    found = compute_logits(TestTimeAugmented(network, "mirror"), images)
    np.testing.assert_allclose(found, both_sides(network, images), rtol=0, atol=2e-6)  # float32 against float64
    assert np.abs(found - in_numpy(network, images)).max() > 0.1


def test_multi_crop_is_half_the_image_and_half_four_views_moved_by_a_pixel() -> None:
    network, images = PixelNetwork(), random_images()
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    down, up = padded[:, :6, :6], padded[:, 2:, 2:]
    np.testing.assert_array_equal(down[:, 1:, 1:], images[:, :-1, :-1])
    np.testing.assert_array_equal(down[:, 0, 1:], images[:, 1, :-1])  # mirrored at the edge, which is not repeated
    expected = both_sides(network, images) / 2 + (both_sides(network, down) + both_sides(network, up)) / 4
    found = compute_logits(TestTimeAugmented(network, "multi-crop"), images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    assert np.abs(found - both_sides(network, images)).max() > 0.1


def test_evaluate_counts_what_the_augmented_logits_say() -> None:
    network = PixelNetwork()
    images = np.random.default_rng(2).integers(0, 256, (60, 6, 6, 3), dtype=np.uint8)
    plain, augmented = (compute_logits(n, images).argmax(-1) for n in (network, TestTimeAugmented(network)))
    assert np.any(plain != augmented)
    split = Split(images, augmented.astype(np.int32))
    assert evaluate(network, split, test_time_augmentation="multi-crop").accuracy == 1.0
    assert evaluate(network, split).accuracy == np.mean(plain == augmented)


def test_a_network_in_train_mode_is_evaluated_and_stays_in_its_mode() -> None:
    class Normed(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.norm = nnx.BatchNorm(3, rngs=rngs)

        def __call__(self, images: jax.Array) -> jax.Array:
            return self.norm(images).mean(axis=(1, 2))

    network, images = Normed(nnx.Rngs(0)), random_images()
    network.train()
    found = compute_logits(TestTimeAugmented(network, "mirror"), images)
    # With the initial statistics BatchNorm only divides by sqrt(1 + epsilon).
    np.testing.assert_allclose(found, images.mean(axis=(1, 2)), rtol=0, atol=1e-4)
    assert not network.norm.use_running_average
    np.testing.assert_array_equal(network.norm.mean[...], np.zeros(3))


def test_an_unknown_kind_is_an_error() -> None:
    kind: Any = "ten-crop"
    with pytest.raises(
        ValueError, match="Expected test-time augmentation to be one of mirror, multi-crop, got 'ten-crop'"
    ):
        TestTimeAugmented(PixelNetwork(), kind)
