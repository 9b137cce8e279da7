"""A part of a data set: so many images of a split, every class in proportion."""

from cnnlab.data.dataset import Dataset, Split, fingerprint_of
from cnnlab.data.errors import DatasetError
from cnnlab.data.splitting import stratified_choice


def part_of(dataset: Dataset, name: str, *, train: int | None = None, test: int | None = None) -> Dataset:
    """Keep so many of the training and of the test images, every class in proportion, in the order of the set.

    Which ones depends on labels and numbers alone (`stratified_choice`, seed 0), so that a name such as
    `"cifar10?train=5000"` means the same images on every machine.

    Args:
        dataset: the whole set.
        name: what the part is called.
        train: training images to keep; None keeps all.
        test: test images to keep; None keeps all.

    Returns:
        The part, with copies of the images where some are left out. Its source says how many there are of how many, its
        fingerprint is that of its own arrays: only these are read.

    Raises:
        DatasetError: no images are to be kept, or more than there are.
    """
    train_part = _part(dataset.train, "train", train, name)
    test_part = _part(dataset.test, "test", test, name)
    kept = (
        f"{len(train_part):,} of {len(dataset.train):,} train and "
        f"{len(test_part):,} of {len(dataset.test):,} test images"
    )
    complete = train_part is dataset.train and test_part is dataset.test
    fingerprint = dataset.fingerprint if complete else fingerprint_of(train_part, test_part)
    return Dataset(name, train_part, test_part, dataset.classes, f"{dataset.source}, {kept}", fingerprint)


def _part(split: Split, which: str, n: int | None, name: str) -> Split:
    if n is None or n == len(split):
        return split
    if not 1 <= n < len(split):
        raise DatasetError(
            f"Expected {which}=N with N from 1 to {len(split)}, the images in that split, got '{name}' with "
            f"{which}={n}; do choose a number between."
        )
    return split.take(stratified_choice(split.labels, n))
