"""Reading what TensorFlow Datasets prepared, without TensorFlow: labels, and images still encoded."""

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cnnlab.data.errors import DatasetError

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_CHUNK = 512  # records read at a time
_LARGEST_RECORD = 1 << 30  # bytes


class TfdsReader:
    """A prepared image-classification set.

    Args:
        folder: the folder with `dataset_info.json`, such as `~/tensorflow_datasets/mnist/3.0.1`.

    Attributes:
        folder: the same.
        splits: name of each split and its number of examples.
        classes: class names.
        channels: of every image: 1, 3 or 4.

    Raises:
        DatasetError: not a readable set, or not one of 8-bit images with one class label each.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow_datasets as tfds

        self.folder = folder
        try:
            self._builder: Any = tfds.builder_from_directory(folder)
        except Exception as error:  # TFDS raises whatever its parsers raise
            raise DatasetError(
                f"Expected a prepared TFDS data set in {folder}, got '{error}'; do prepare it again."
            ) from error
        info = self._builder.info
        self._image, self._label = _image_and_label(info.features, info.supervised_keys, info.name)
        self.splits: dict[str, int] = {name: split.num_examples for name, split in info.splits.items()}
        self.classes = tuple(info.features[self._label].names)
        self.channels: int = info.features[self._image].shape[-1] or 3
        self._decoders = {
            key: tfds.decode.SkipDecoding()
            for key, feature in info.features.items()
            if isinstance(feature, tfds.features.Image)
        }

    def labels(self, split: str) -> np.ndarray:
        """Class of every example, `int32 [n]`; -1 where the set hides it."""
        examples = self._examples(split, np.arange(self.splits[split]))
        return np.fromiter((example[self._label] for example in examples), np.int32, self.splits[split])

    def images(self, split: str, indices: np.ndarray) -> Iterator[tuple[str, bytes]]:
        """`(name for messages, encoded image)` at ascending `indices`, `int64 [k]`."""
        for index, example in zip(indices, self._examples(split, indices), strict=True):
            yield f"{self._builder.info.name} {split}[{index}]", example[self._image]

    def _examples(self, split: str, indices: np.ndarray) -> Iterator[dict[str, Any]]:
        file_format = self._builder.info.file_format
        if file_format is not None and file_format.value == "tfrecord":
            features = self._builder.info.features
            wanted = set(indices.tolist())
            for index, record in enumerate(self._tfrecords(split)):
                if index in wanted:
                    yield features.deserialize_example_np(record, decoders=self._decoders)
            return
        source = self._builder.as_data_source(split=split, decoders=self._decoders)
        for start in range(0, len(indices), _CHUNK):
            yield from source.__getitems__(indices[start : start + _CHUNK].tolist())

    def _tfrecords(self, split: str) -> Iterator[bytes]:
        """Records of a TFRecord file: length (8 bytes), its CRC (4), content, its CRC (4)."""
        for path in self._builder.info.splits[split].filepaths:
            with open(path, "rb") as file:
                while header := file.read(12):
                    length = struct.unpack("<Q", header[:8])[0] if len(header) == 12 else _LARGEST_RECORD + 1
                    content = file.read(length) if length <= _LARGEST_RECORD else b""
                    if len(content) != length or len(file.read(4)) != 4:
                        raise DatasetError(f"Expected whole records in {path}, got a cut one; do prepare it again.")
                    yield content


def find_prepared(name: str, config: str | None, version: str | None, data_dirs: list[Path]) -> Path | None:
    """Folder of a set that TFDS prepared before; looks at folders only, without importing TFDS.

    Args:
        name: of the set.
        config: of the set, or None: its only one on disk, or none.
        version: such as `"3.0.1"`, or None: the newest on disk.
        data_dirs: where to look, in this order.

    Raises:
        DatasetError: no `config` was given and several are on disk.
    """
    for data_dir in data_dirs:
        base = data_dir / name / config if config else data_dir / name
        versions = _versions(base, version)
        if not versions and not config and os.path.isdir(base):
            configs = {path.name: found for path in base.iterdir() if (found := _versions(path, version))}
            if len(configs) > 1:
                raise DatasetError(
                    f"Expected one configuration of {name}, got {', '.join(sorted(configs))} in {base}; "
                    f"do name one, such as {name}/{min(configs)}."
                )
            versions = next(iter(configs.values()), [])
        if versions:
            return max(versions, key=lambda path: tuple(map(int, path.name.split("."))))
    return None


def tfds_data_dirs(data_dir: Path | None) -> list[Path]:
    """Where TFDS keeps its sets: `data_dir`, else `$TFDS_DATA_DIR`, else `~/tensorflow_datasets`."""
    if data_dir is not None:
        return [data_dir]
    own = os.environ.get("TFDS_DATA_DIR")
    return [Path(own).expanduser() if own else Path.home() / "tensorflow_datasets"]


def prepared_files(folder: Path) -> list[Path]:
    """The files of a prepared set, for a signature."""
    return sorted(path for path in folder.iterdir() if path.is_file())


def _versions(base: Path, version: str | None) -> list[Path]:
    if not os.path.isdir(base):  # unlike Path.is_dir, no error where the folder may not be looked at
        return []
    names = [version] if version else [path.name for path in base.iterdir() if _VERSION.fullmatch(path.name)]
    return [base / name for name in names if (base / name / "dataset_info.json").is_file()]


def _image_and_label(features: Any, supervised_keys: Any, name: str) -> tuple[str, str]:
    """Keys of the image and of its class: the pair that the set names, else the only ones there are."""
    import tensorflow_datasets as tfds

    keys = [key for key in supervised_keys or () if isinstance(key, str)]
    fields = dict(features.items()) if hasattr(features, "items") else {}
    candidates = {key: fields[key] for key in keys if key in fields} if len(keys) == 2 else fields
    images = [key for key, feature in candidates.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in candidates.items() if isinstance(feature, tfds.features.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        shown = ", ".join(f"{key}: {type(feature).__name__}" for key, feature in fields.items())
        raise DatasetError(
            f"Expected an image-classification set (an Image, a ClassLabel), got {name} with "
            f"{shown or features}; do choose another, or read it with TFDS and use dataset_from_arrays."
        )
    if np.dtype(fields[images[0]].np_dtype) != np.uint8:
        raise DatasetError(
            f"Expected 8-bit images, got {np.dtype(fields[images[0]].np_dtype)} in {name}; "
            "do convert them and use dataset_from_arrays."
        )
    return images[0], labels[0]
