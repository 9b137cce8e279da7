"""One name, one data set: the function that everything else in cnnlab loads data with."""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from cnnlab.data.dataset import Dataset
from cnnlab.data.errors import DatasetError
from cnnlab.data.image_arrays import parse_size
from cnnlab.data.parts import part_of

KNOWN = ("cifar10", "digits", "folder:PATH")

_NUMBER = re.compile(r"[1-9][0-9]{0,11}")
_TFDS_NAME = re.compile(r"([a-z][a-z0-9_]*)(?:/([A-Za-z0-9][\w.+-]*))?(?::(\d+\.\d+\.\d+))?")


def load_dataset(
    name: str = "digits", data_dir: str | Path | None = None, *, download: bool = True, progress: bool = True
) -> Dataset:
    """Load a data set by name.

    The first use of a set may take a minute: it is found or fetched, checked, decoded, and kept as plain
    arrays in the cache (`$CNNLAB_CACHE`, by default `~/.cache/cnnlab`). Every later use maps those arrays
    into memory.

    Args:
        name: one of

            - `"digits"`: 1,797 images of 8x8 pixels that come with scikit-learn;
            - `"cifar10"`: 60,000 images of 32x32 pixels, see below;
            - `"folder:PATH"`: images in one sub-folder per class, see `cnnlab.data.folder`;
            - `"mnist"`, `"emnist/letters"`, `"cifar100:3.0.2"` ...: any image-classification set of TensorFlow
              Datasets, `name[/config][:version]`; TensorFlow is not needed.

            Folders, digits and TFDS sets take options: `?size=64` or `?size=64x48` (height x width) scales every
            image to cover that size and cuts out its middle; folders also take `?channels=1`, as in
            `"folder:PATH?size=64&channels=1"`. Every set takes `?train=5000` and `?test=1000`, which keep so many
            images of that split, every class in proportion and always the same ones, in the order of the set.
        data_dir: a place for this call alone. For `"cifar10"`: the folder with the official binary files, its
            parent, a folder with the archive, the archive, or a TFDS data folder. For a TFDS set: TFDS's data
            folder. When the set is not there, what was prepared before is used, and standard error says so; only
            when there is none, the set is downloaded to there. For `"folder:PATH"`: what a relative PATH starts
            from. For `"digits"`: not needed.
        download: whether the network may be used.
        progress: show progress bars on standard error.

    Returns:
        The data set; its images may be read-only memory maps.

    Raises:
        DatasetNotFound: not on this machine, and it may not or cannot be downloaded.
        DatasetError: unknown name or option, fewer images than asked for, or data that is damaged or does not fit.

    Example:
        >>> data = load_dataset("digits")
        >>> len(data.train), len(data.test), data.image_shape
        (1297, 500, (8, 8, 1))
    """
    place = None if data_dir is None else Path(data_dir).expanduser()
    base, _, query = name.partition("?")
    options = _parse_options(query, name)
    dataset = _load_whole(base, name, options, place, download=download, progress=progress)
    if options.train is None and options.test is None:
        return dataset
    return part_of(dataset, name, train=options.train, test=options.test)


@dataclass(frozen=True)
class _Options:
    size: tuple[int, int] | None = None
    channels: int | None = None
    train: int | None = None
    test: int | None = None


def _load_whole(
    base: str, name: str, options: _Options, place: Path | None, *, download: bool, progress: bool
) -> Dataset:
    """The set that `base` names, with all its images."""
    if base.startswith("folder:"):
        from cnnlab.data.folder import load_folder

        path = (place or Path()) / Path(base.removeprefix("folder:")).expanduser()
        return load_folder(path, name, options.size, options.channels or 3, progress=progress)
    if options.channels is not None or (options.size is not None and base == "cifar10"):
        refused = "size" if options.channels is None else "channels"
        raise DatasetError(f"Expected options that {base} takes, got {refused}=; do use it with folder:PATH.")
    if base == "digits":
        from cnnlab.data.digits import load_digits

        return load_digits(options.size)
    if base == "cifar10":
        from cnnlab.data.cifar10 import load_cifar10

        return load_cifar10(place, download_allowed=download, progress=progress)

    from cnnlab.data.tfds_sets import TfdsName, load_tfds

    match = _TFDS_NAME.fullmatch(base)
    if match is None:
        raise DatasetError(
            f"Expected the name of a data set, got '{base}'; do choose {', '.join(KNOWN)}, or a TFDS name "
            "(name[/config][:version])."
        )
    which = TfdsName(*match.groups())
    return load_tfds(which, place, options.size, known=KNOWN, download=download, progress=progress)


def _parse_options(query: str, name: str) -> _Options:
    """What stands behind the `?` of a name."""
    given = parse_qsl(query, keep_blank_values=True)
    values = dict(given)
    if len(values) != len(given) or not set(values) <= {"size", "channels", "train", "test"}:
        raise DatasetError(
            f"Expected size=, channels=, train= and test=, each once, after the ?, got '{name}'; "
            f"do write {KNOWN[-1]}?size=64&train=1000."
        )
    channels = values.get("channels")
    if channels not in (None, "1", "3", "4"):
        raise DatasetError(f"Expected channels=1, 3 or 4, got channels={channels}; do choose one of these.")
    return _Options(
        size=parse_size(values["size"]) if "size" in values else None,
        channels=None if channels is None else int(channels),
        train=_number_of_images("train", values),
        test=_number_of_images("test", values),
    )


def _number_of_images(which: str, values: dict[str, str]) -> int | None:
    """How many images of a split are asked for; None for all."""
    if which not in values:
        return None
    if not _NUMBER.fullmatch(values[which]):
        raise DatasetError(
            f"Expected {which}=N, a whole number of images from 1, got {which}={values[which]}; do write {which}=1000."
        )
    return int(values[which])
