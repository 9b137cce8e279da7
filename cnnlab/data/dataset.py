"""The two records that the whole library passes around: a split and a data set."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from cnnlab.data.errors import DatasetError
from cnnlab.data.splitting import complement, stratified_choice


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels, in a fixed order.

    Attributes:
        images: `uint8 [n, height, width, channels]`, 0 to 255; often a read-only memory map.
        labels: `int32 [n]`, classes from 0.

    Raises:
        DatasetError: dtypes, ranks or lengths differ from the above.
    """

    images: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)

    def __post_init__(self) -> None:
        images, labels = self.images, self.labels
        if images.dtype != np.uint8 or images.ndim != 4:
            raise DatasetError(
                f"Expected images uint8 [n, height, width, channels], got {_describe(images)}; "
                "do convert them, or use dataset_from_arrays."
            )
        if labels.dtype != np.int32 or labels.ndim != 1:
            raise DatasetError(
                f"Expected labels int32 [n], got {_describe(labels)}; do convert them, or use dataset_from_arrays."
            )
        if len(images) != len(labels):
            raise DatasetError(
                f"Expected one label for each image, got {len(images)} images and {len(labels)} labels; do match them."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: slice | npt.ArrayLike) -> "Split":
        """The examples at `indices`, in that order: a view for a slice, a copy for an integer array `[k]`."""
        where = indices if isinstance(indices, slice) else np.asarray(indices)
        return Split(self.images[where], self.labels[where])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A classification data set: two splits and what their labels mean.

    Attributes:
        name: the name it was asked for, such as `"cifar10"`.
        train: examples to learn from.
        test: examples to be read once, at the end.
        classes: class names; label `i` means `classes[i]`.
        source: one line that says where the data came from.
        fingerprint: SHA-256 (hexadecimal) of the arrays, see `fingerprint_of`. Equal data, equal fingerprint.

    Raises:
        DatasetError: a split is empty, the splits differ in image shape, or a label has no class name.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    source: str
    fingerprint: str

    def __post_init__(self) -> None:
        if self.train.images.shape[1:] != self.test.images.shape[1:]:
            raise DatasetError(
                f"Expected train and test images of one shape, got {self.train.images.shape[1:]} and "
                f"{self.test.images.shape[1:]}; do resize one of them."
            )
        for which, split in (("train", self.train), ("test", self.test)):
            if len(split) == 0:
                raise DatasetError(f"Expected examples in the {which} split, got none; do add some.")
            low, high = int(split.labels.min()), int(split.labels.max())
            if low < 0 or high >= len(self.classes):
                raise DatasetError(
                    f"Expected {which} labels from 0 to {len(self.classes) - 1}, got {low} to {high}; "
                    "do renumber them or name more classes."
                )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of every image, in pixels."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    @property
    def num_classes(self) -> int:
        """How many classes there are names for."""
        return len(self.classes)

    def hold_out(self, n: int, seed: int = 0) -> tuple[Split, Split]:
        """Cut the training split in two, for example to choose hyperparameters without the test set.

        Args:
            n: size of the second part, in examples.
            seed: chooses which; the same seed gives the same cut on every machine (see `stratified_choice`).

        Returns:
            `(rest, held_out)`: copies, every class in proportion in both, the order of the training split
            kept.

        Raises:
            DatasetError: `n` leaves one of the two empty.
        """
        chosen = stratified_choice(self.train.labels, n, seed)
        return self.train.take(complement(chosen, len(self.train))), self.train.take(chosen)


def dataset_from_arrays(
    train_images: npt.ArrayLike,
    train_labels: npt.ArrayLike,
    test_images: npt.ArrayLike,
    test_labels: npt.ArrayLike,
    classes: tuple[str, ...] | list[str] | None = None,
    name: str = "arrays",
) -> Dataset:
    """A data set from arrays of your own.

    Args:
        train_images: `uint8 [n, height, width, channels]`, or `[n, height, width]` for one channel.
        train_labels: integers `[n]`, classes from 0.
        test_images: like `train_images`, of the same image shape.
        test_labels: like `train_labels`.
        classes: class names; by default the numbers `"0"`, `"1"`, ... up to the largest label.
        name: what reports call it.

    Raises:
        DatasetError: images that are not uint8 (floats would be rounded silently), labels that are not
            integers or have no class, or shapes that do not fit.

    Example:
        >>> images, labels = np.zeros((4, 8, 8), np.uint8), [0, 1, 0, 1]
        >>> dataset_from_arrays(images, labels, images, labels).image_shape
        (8, 8, 1)
    """
    train = Split(_as_images(train_images), _as_labels(train_labels))
    test = Split(_as_images(test_images), _as_labels(test_labels))
    if classes is None:
        largest = max((int(split.labels.max()) for split in (train, test) if len(split)), default=-1)
        classes = tuple(str(label) for label in range(largest + 1))
    return Dataset(name, train, test, tuple(classes), "arrays in memory", fingerprint_of(train, test))


def fingerprint_of(train: Split, test: Split) -> str:
    """SHA-256 over dtype, shape and bytes of the train images, train labels, test images and test labels.

    Returns:
        64 hexadecimal digits. Reads all the data: about 0.2 s for CIFAR-10.
    """
    digest = hashlib.sha256()
    for split in (train, test):
        for array in (split.images, split.labels):
            digest.update(f"{array.dtype.name}{list(array.shape)}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _as_images(images: npt.ArrayLike) -> np.ndarray:
    array = np.asarray(images)
    return array[..., None] if array.ndim == 3 else array  # [n, h, w] -> [n, h, w, 1]


def _as_labels(labels: npt.ArrayLike) -> np.ndarray:
    array = np.asarray(labels)
    if array.dtype.kind not in "iu":
        raise DatasetError(f"Expected integer labels [n], got {_describe(array)}; do number the classes from 0.")
    if array.size and (array.min() < 0 or array.max() > np.iinfo(np.int32).max):
        raise DatasetError(f"Expected labels from 0, got {array.min()} to {array.max()}; do number the classes from 0.")
    return array.astype(np.int32)


def _describe(array: Any) -> str:
    return f"{array.dtype} {list(array.shape)}"
