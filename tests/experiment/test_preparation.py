"""Which images a network sees whose first weights depend on the data."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.experiment.preparation import prepared


class Watching:
    """Keeps the images that it is prepared with; nothing else of a network is asked for."""

    def prepare(self, images):
        self.images = np.asarray(images)


def places(shape: tuple[int, ...]) -> list[int]:
    """Which of so many images are seen; each holds its number, and is not stored."""
    numbers = np.broadcast_to(np.arange(shape[0], dtype=np.float32)[:, None, None, None], shape)
    network = prepared(Watching(), numbers)
    return network.images[:, 0, 0, 0].astype(int).tolist()


def test_no_class_of_sorted_images_is_left_out():
    assert places((9999, 1, 1, 1))[-1] == 9997 and len(set(places((9999, 1, 1, 1)))) == 5000
    classes = np.sort(np.arange(12000) % 10)[places((12000, 1, 1, 1))]
    assert np.bincount(classes).tolist() == [500] * 10


@pytest.mark.parametrize("images", [1, 7, 5000])
def test_all_of_few_images_are_seen(images):
    assert places((images, 2, 2, 1)) == [*range(images)]


def test_of_cifar10_every_tenth_is_seen():
    assert places((50000, 32, 32, 1)) == [*range(0, 50000, 10)]


@pytest.mark.parametrize(("images", "side", "count"), [(2000, 64, 1250), (2000, 224, 102), (20, 2400, 1)])
def test_of_large_images_so_many_are_seen_as_have_the_pixels_of_5000_small_ones(images, side, count):
    seen = places((images, side, side, 1))
    assert len(seen) == count and seen[0] == 0
    assert {b - a for a, b in zip(seen, seen[1:], strict=False)} <= {images // count, images // count + 1}


def test_they_come_as_numbers_from_0_to_1_from_the_host_or_the_device():
    images = np.random.default_rng(0).integers(0, 256, (6000, 2, 2, 3), np.uint8)
    host, device = prepared(Watching(), images).images, prepared(Watching(), jnp.asarray(images)).images
    assert host.dtype == np.float32 and host.shape == (5000, 2, 2, 3)
    np.testing.assert_allclose(host[:2], images[:2] / 255, rtol=1e-6)
    np.testing.assert_array_equal(host, device)


def test_a_network_that_computes_nothing_from_images_stays_as_it_is():
    network = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    assert prepared(network, np.zeros((3, 1, 1, 2))) is network
