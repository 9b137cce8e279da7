"""The TFDS builder on the real CIFAR-10, when $CNNLAB_DATA has the official files."""

import os
from pathlib import Path

import numpy as np
import pytest

from cnnlab.data.cifar10 import GROUP, LAYOUT
from cnnlab.data.cifar10_binary import CLASSES, find_binary, read_binary
from cnnlab.data.tfds_sets import load_prepared, quiet_tfds

PLACE = os.environ.get("CNNLAB_DATA")
SOURCE = find_binary(Path(PLACE)) if PLACE else None

pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(SOURCE is None, reason="$CNNLAB_DATA does not name a place with the official CIFAR-10")
def test_the_tfds_set_holds_the_sixty_thousand_images_of_the_archive_bit_for_bit(tmp_path: Path) -> None:
    from cnnlab.data.tfds_cifar10 import Cifar10Binary

    assert SOURCE is not None
    with quiet_tfds(False):
        Cifar10Binary(SOURCE, LAYOUT, data_dir=tmp_path).download_and_prepare()
    found = load_prepared(tmp_path / "cifar10_binary" / "1.0.0", GROUP, GROUP, None, progress=False)
    assert found.classes == CLASSES
    for split, official, count in zip(
        (found.train, found.test), read_binary(SOURCE, LAYOUT), (50_000, 10_000), strict=True
    ):
        assert split.images.shape == (count, 32, 32, 3)
        np.testing.assert_array_equal(split.images, official.images)
        np.testing.assert_array_equal(split.labels, official.labels)
