"""On the real CIFAR-10, when $CNNLAB_DATA has the official binary folder or archive."""

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest

from cnnlab.data import load_dataset
from cnnlab.data.cifar10_binary import Cifar10Layout, find_binary

PLACE = os.environ.get("CNNLAB_DATA")
SOURCE = find_binary(Path(PLACE)) if PLACE else None

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(SOURCE is None, reason="$CNNLAB_DATA does not name a place with the official CIFAR-10"),
    pytest.mark.usefixtures("without_tfds"),
]


@pytest.fixture
def data():
    return load_dataset("cifar10", SOURCE, progress=False)


def test_every_class_has_5000_train_and_1000_test_images(data) -> None:
    assert np.bincount(data.train.labels).tolist() == [5000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10


def test_the_pixels_have_the_published_mean_and_standard_deviation(data) -> None:
    for channel, (mean, std) in enumerate([(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]):
        counts = np.bincount(data.train.images[..., channel].ravel(), minlength=256)
        levels = np.arange(256) / 255
        found = np.average(levels, weights=counts)
        assert abs(found - mean) < 5e-5  # four digits are published
        assert abs(np.sqrt(np.average((levels - found) ** 2, weights=counts)) - std) < 5e-5


def test_the_test_images_are_the_official_ones(data) -> None:
    """The order of the training images differs in copies that were re-made; the test batch is the same."""
    planes = np.ascontiguousarray(data.test.images.transpose(0, 3, 1, 2)).reshape(-1, 3072)
    records = np.concatenate([data.test.labels[:, None].astype(np.uint8), planes], axis=1)
    assert records.nbytes == Cifar10Layout().batch_bytes
    if SOURCE is not None and SOURCE.is_dir():
        official = hashlib.sha256((SOURCE / "test_batch.bin").read_bytes()).hexdigest()
        assert hashlib.sha256(records.tobytes()).hexdigest() == official


def test_a_later_load_takes_less_than_half_a_second(data) -> None:
    started = time.perf_counter()
    again = load_dataset("cifar10", SOURCE, progress=False)
    assert time.perf_counter() - started < 0.5
    assert again.fingerprint == data.fingerprint
