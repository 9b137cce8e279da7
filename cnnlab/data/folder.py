"""A folder of images, one sub-folder per class: decoded once, and again only when a file changes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cnnlab.data import cache
from cnnlab.data.dataset import Dataset
from cnnlab.data.errors import DatasetError, ImageError
from cnnlab.data.image_arrays import write_images
from cnnlab.data.images import IMAGE_SUFFIXES
from cnnlab.data.splitting import complement, default_test_choice

_TEST_FOLDERS = ("test", "validation", "val")


def load_folder(
    folder: Path, name: str, size: tuple[int, int] | None = None, channels: int = 3, *, progress: bool = True
) -> Dataset:
    """Read a folder of images.

    Two layouts: `folder/train/<class>/*.png` with `folder/test/<class>/*.png` (`validation` or `val` will
    do), or `folder/<class>/*.png`, of which a tenth of each class becomes the test split, always the same.
    Classes are the names of the sub-folders in sorted order, images are in the order of class and file name;
    hidden files and files without an image suffix are passed over.

    Args:
        folder: the folder.
        name: what the data set is called.
        size: `(height, width)` to resize every image to (see `read_image`); None demands that all have one
            size.
        channels: 1, 3 or 4; images that have others are converted.
        progress: show a bar.

    Raises:
        DatasetError: no such folder, no class or image in it, a class in the test split alone, damaged images
            (named), or images of several sizes without `size`.
    """
    if not folder.is_dir():
        raise DatasetError(f"Expected a folder of images, got no folder {folder}; do check the path.")
    classes, train, test = _list_splits(folder)
    files = [path for path, _ in (*train, *test)]
    signature = cache.signature_of("folder", files, size, channels, classes, len(train))
    if (dataset := cache.find_by_source("folder", signature, name)) is not None:
        return dataset

    def write(draft: Path) -> tuple[str, ...]:
        for which, examples in (("train", train), ("test", test)):
            np.save(draft / f"labels_{which}.npy", np.array([label for _, label in examples], np.int32))
            write_images(
                draft / f"images_{which}.npy",
                _read(examples),
                len(examples),
                size=size,
                channels=channels,
                progress=progress,
            )
        return classes

    return cache.prepare("folder", signature, name=name, source=f"image folder {folder.resolve()}", write=write)


def _list_splits(folder: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]], list[tuple[Path, int]]]:
    """Class names, and the `(path, label)` of the train and of the test images."""
    test_folder = next((folder / name for name in _TEST_FOLDERS if (folder / name).is_dir()), None)
    if (folder / "train").is_dir() and test_folder is not None:
        classes = _classes(folder / "train")
        if unknown := sorted(set(_classes(test_folder)) - set(classes)):
            raise DatasetError(
                f"Expected every test class in {folder / 'train'} too, got {', '.join(unknown)} only in "
                f"{test_folder}; do add training images or remove it."
            )
        return (
            classes,
            _examples(folder / "train", classes),
            _examples(test_folder, _classes(test_folder), classes),
        )
    root = folder / "train" if (folder / "train").is_dir() else folder
    classes = _classes(root)
    everything = _examples(root, classes)
    chosen = default_test_choice(np.array([label for _, label in everything], np.int32))
    rest = complement(chosen, len(everything))
    return classes, [everything[i] for i in rest], [everything[i] for i in chosen]


def _classes(root: Path) -> tuple[str, ...]:
    names = tuple(sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")))
    if not names:
        raise DatasetError(f"Expected one sub-folder per class in {root}, got none; do sort the images into folders.")
    return names


def _examples(root: Path, present: tuple[str, ...], classes: tuple[str, ...] | None = None) -> list[tuple[Path, int]]:
    """`(path, label)` of every image of the classes `present` under `root`, numbered as in `classes`."""
    found: list[tuple[Path, int]] = []
    for name in present:
        images = sorted(
            path
            for path in (root / name).iterdir()
            if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
        )
        if not images:
            raise DatasetError(f"Expected images in {root / name}, got none; do add some or remove the folder.")
        label = (classes or present).index(name)
        found += [(path, label) for path in images]
    return found


def _read(examples: list[tuple[Path, int]]) -> Iterator[tuple[str, bytes]]:
    for path, _ in examples:
        try:
            yield str(path), path.read_bytes()
        except OSError as error:
            raise ImageError(f"Expected to read {path}, got '{error}'; do check the file.") from error
