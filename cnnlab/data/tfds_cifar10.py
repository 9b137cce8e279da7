"""CIFAR-10 as a TensorFlow Datasets builder that works without TensorFlow and reads a local archive.

The stock builder needs TensorFlow, and accepts only the archive with the official checksum. This one makes,
from the same archive or folder, a data set in ArrayRecord files that anybody can read without this file:

    tfds.builder_from_directory(".../cifar10_binary/1.0.0").as_data_source("train[:45000]")

Importing this module imports tensorflow_datasets.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from cnnlab.data.cifar10_binary import CLASSES, Cifar10Layout, read_binary
from cnnlab.data.dataset import Split


class Cifar10Binary(tfds.core.GeneratorBasedBuilder):
    """CIFAR-10, in the official order.

    Args:
        source: folder or archive, see `find_binary`.
        layout: how many records to expect.
        data_dir: where `cifar10_binary/1.0.0/` is made.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, source: Path, layout: Cifar10Layout, *, data_dir: Path) -> None:
        self._source, self._layout = source, layout
        super().__init__(data_dir=data_dir, file_format="array_record")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="60,000 colour images, 32 x 32 pixels, 10 classes, in the official order.",
            homepage="https://www.cs.toronto.edu/~kriz/cifar.html",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(32, 32, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,  # the first record stays the first
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        train, test = read_binary(self._source, self._layout)
        return {"train": self._generate_examples(train), "test": self._generate_examples(test)}

    def _generate_examples(self, split: Split) -> Iterator[tuple[int, dict[str, Any]]]:
        from PIL import Image  # TFDS encodes PIL images itself; for arrays it would call TensorFlow

        for index, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            yield index, {"image": Image.fromarray(image), "label": int(label)}
