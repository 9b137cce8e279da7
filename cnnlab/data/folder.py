"""A folder of images, one sub-folder per class: decoded once, and again only when a file changes."""

import os
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
    do), or `folder/<class>/*.png`, of which a tenth of each class becomes the test split, always the same. A
    folder `train` that holds images and no folders of images is a class like any other. Classes are the names of
    the sub-folders in sorted order, images are in the order of class and file name; hidden files and files
    without an image suffix are passed over.

    Args:
        folder: the folder.
        name: what the data set is called.
        size: `(height, width)` to resize every image to (see `read_image`); None demands that all have one
            size.
        channels: 1, 3 or 4; images that have others are converted.
        progress: show a bar.

    Raises:
        DatasetError: no such folder, no class or image in it, a class in the test split alone, something that
            cannot be read (named), damaged images (named), or images of several sizes without `size`.
    """
    if not folder.is_dir():
        raise DatasetError(f"Expected a folder of images, got no folder {folder}; do check the path.")
    try:
        classes, train, test = _list_splits(folder)
        files = [path for path, _ in (*train, *test)]
        signature = cache.signature_of("folder", files, size, channels, classes, len(train))
    except OSError as error:
        raise DatasetError(_unreadable(error.filename, error)) from error
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
    if not _is_split(folder / "train"):
        return _cut(folder)
    train, test = folder / "train", next((folder / name for name in _TEST_FOLDERS if (folder / name).is_dir()), None)
    if test is None:
        return _cut(train)
    classes, tested = _classes(train), _classes(test)
    if unknown := sorted(set(tested) - set(classes)):
        raise DatasetError(
            f"Expected every test class in {train} too, got {', '.join(unknown)} only in {test}; "
            "do add training images or remove it."
        )
    return classes, _examples(train, classes), _examples(test, tested, classes)


def _cut(root: Path) -> tuple[tuple[str, ...], list[tuple[Path, int]], list[tuple[Path, int]]]:
    """The same for class folders in `root` that have no test split: a tenth of each class."""
    classes = _classes(root)
    everything = _examples(root, classes)
    chosen = default_test_choice(np.array([label for _, label in everything], np.int32))
    rest = complement(chosen, len(everything))
    return classes, [everything[i] for i in rest], [everything[i] for i in chosen]


def _is_split(folder: Path) -> bool:
    """Whether `folder` holds class folders, and is not itself a class that happens to be called train."""
    if not folder.is_dir():
        return False
    inside = _sub_folders(folder)
    return any(map(_images, inside)) or bool(inside and not _images(folder))


def _sub_folders(folder: Path) -> list[Path]:
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                if entry.is_symlink():
                    entry.stat()  # a link to nothing is an error: it may have been a class
                names += [entry.name] if entry.is_dir() else []
    return [folder / name for name in sorted(names)]


def _images(folder: Path) -> list[Path]:
    files = (path for path in folder.iterdir() if not path.name.startswith("."))
    return sorted(path for path in files if path.suffix.lower() in IMAGE_SUFFIXES)


def _classes(root: Path) -> tuple[str, ...]:
    names = tuple(path.name for path in _sub_folders(root))
    if not names:
        raise DatasetError(f"Expected one sub-folder per class in {root}, got none; do sort the images into folders.")
    return names


def _examples(root: Path, present: tuple[str, ...], classes: tuple[str, ...] | None = None) -> list[tuple[Path, int]]:
    """`(path, label)` of every image of the classes `present` under `root`, numbered as in `classes`."""
    found: list[tuple[Path, int]] = []
    for name in present:
        images = _images(root / name)
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
            raise ImageError(_unreadable(path, error)) from error


def _unreadable(path: str | Path, error: OSError) -> str:
    reason = "a link to nothing" if Path(path).is_symlink() and not os.path.exists(path) else f"'{error.strerror}'"
    return f"Expected to read {path}, got {reason}; do mend or remove it."
