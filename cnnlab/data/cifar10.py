"""CIFAR-10: finding it, fetching it, preparing it once.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

import os
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path

from cnnlab.data import cache
from cnnlab.data.cifar10_binary import (
    ARCHIVE,
    CLASSES,
    Cifar10Layout,
    binary_fault,
    binary_files,
    find_binary,
    other_version,
    read_binary,
)
from cnnlab.data.dataset import Dataset
from cnnlab.data.download import RemoteFile, Unreachable, download
from cnnlab.data.errors import DatasetError, DatasetNotFound
from cnnlab.data.progress import notice
from cnnlab.data.tfds_reader import find_prepared, tfds_data_dirs
from cnnlab.data.tfds_sets import INSTALL_TFDS, load_prepared, quiet_tfds, tfds_available

GROUP = "cifar10"
LAYOUT = Cifar10Layout()
REMOTE = RemoteFile(
    url=f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


def load_cifar10(data_dir: Path | None, *, download_allowed: bool = True, progress: bool = True) -> Dataset:
    """CIFAR-10 from the first of these that has it.

    1. A place named on purpose, `data_dir` and then `$CNNLAB_DATA`: the folder `cifar-10-batches-bin`, the archive,
       a folder with one of them in it, or a TFDS data folder.
    2. What was prepared last.
    3. An archive that was downloaded before.
    4. A set that TFDS prepared.
    5. The download, into `data_dir` when that was given.

    A place is recognised by path, size and time of change, so what it holds now is what is loaded, and what was
    prepared from it before is not prepared again. Where a place named on purpose has no CIFAR-10 and another
    has, one line on standard error says so.

    Args:
        data_dir: where CIFAR-10 is, or is to be downloaded to.
        download_allowed: whether the network may be used.
        progress: show bars.

    Raises:
        DatasetNotFound: nowhere here, and no way to download it.
        DatasetError: what is there is damaged.
    """
    missed: list[str] = []
    for name, place in _named_places(data_dir):
        if (dataset := _load_from(place, progress)) is not None:
            return _instead_of(missed, dataset)
        missed.append(f"{name} {place} ({cifar10_fault(place)})")
    if (dataset := cache.find_newest(GROUP, GROUP)) is not None:
        return _instead_of(missed, dataset, "what was prepared before from ")
    for place in _usual_places():
        if (dataset := _load_from(place, progress)) is not None:
            return _instead_of(missed, dataset)
    return _download(data_dir or _downloads(), missed, download_allowed, progress)


def cifar10_location(*, named: bool = True) -> str | None:
    """Where `load_cifar10(None)` would find CIFAR-10 on this machine, or None; looks at folders only.

    Args:
        named: whether `$CNNLAB_DATA` counts.
    """
    for _, place in _named_places(None) if named else []:
        if (found := _find(place)) is not None:
            return str(found)
    if (entry := cache.newest_entry(GROUP)) is not None:
        return str(entry)
    return next((str(found) for place in _usual_places() if (found := _find(place)) is not None), None)


def cifar10_fault(place: Path) -> str | None:
    """Why CIFAR-10 cannot be loaded from `place`, in a few words; None when names and sizes are as they should be."""
    if (source := find_binary(place)) is not None:
        return binary_fault(source, LAYOUT)
    if _prepared_by_tfds(place) is not None:
        return None
    if not os.path.exists(place):
        return "no such folder"
    if not os.access(place, os.R_OK | os.X_OK):
        return "a folder that may not be read"
    if (version := other_version(place)) is not None:
        return f"only the {version} version of it; the binary version is needed"
    return "an empty folder" if next(place.iterdir(), None) is None else "none in this folder"


def _named_places(data_dir: Path | None) -> list[tuple[str, Path]]:
    """What a person named on purpose: how to call it, and where it is."""
    variable = os.environ.get("CNNLAB_DATA")
    named = [("data_dir", data_dir), ("$CNNLAB_DATA", Path(variable).expanduser() if variable else None)]
    return [(name, place) for name, place in named if place is not None]


def _usual_places() -> list[Path]:
    return [_downloads(), *tfds_data_dirs(None)]


def _downloads() -> Path:
    return cache.cache_root() / "downloads"


def _instead_of(missed: list[str], dataset: Dataset, what: str = "") -> Dataset:
    """The data set; says where it is from when places that were named had none."""
    if missed:
        notice(f"no CIFAR-10 in {' or '.join(missed)}; used instead: {what}{dataset.source}")
    return dataset


def _find(place: Path) -> Path | None:
    return find_binary(place) or _prepared_by_tfds(place)


def _load_from(place: Path, progress: bool) -> Dataset | None:
    """What `place` holds, or None when CIFAR-10 is not there."""
    if (source := find_binary(place)) is not None:
        return _load_binary(source, progress)
    if (folder := _prepared_by_tfds(place)) is not None:
        dataset = load_prepared(folder, GROUP, GROUP, None, progress=progress)
        n = LAYOUT.images_per_batch
        expected, got = (n * LAYOUT.train_batches, n), (len(dataset.train), len(dataset.test))
        if got != expected:
            raise DatasetError(
                f"Expected {expected} train and test images in {folder}, got {got}; do prepare it again."
            )
        return dataset
    return None


def _prepared_by_tfds(place: Path) -> Path | None:
    if not tfds_available():
        return None
    found = (find_prepared(name, None, None, [place]) for name in ("cifar10", "cifar10_binary"))
    return next((folder for folder in found if folder is not None), None)


def _load_binary(source: Path, progress: bool) -> Dataset:
    """Read the official files; beside the arrays, make a TFDS data set of them when TFDS is installed."""
    signature = cache.signature_of("binary", binary_files(source, LAYOUT))
    if (dataset := cache.find_by_source(GROUP, signature, GROUP)) is not None:
        return dataset

    def write(draft: Path) -> tuple[str, ...]:
        train, test = read_binary(source, LAYOUT)
        cache.write_split(draft, "train", train)
        cache.write_split(draft, "test", test)
        return CLASSES

    def extend(draft: Path) -> None:
        if tfds_available() and find_spec("PIL") is not None:
            _prepare_tfds(source, draft / "tfds", progress)

    kind = "archive" if source.is_file() else "folder"
    return cache.prepare(
        GROUP,
        signature,
        name=GROUP,
        source=f"official binary {kind} {source.resolve()}",
        write=write,
        extend=extend,
    )


def _prepare_tfds(source: Path, data_dir: Path, progress: bool) -> None:
    """Make `data_dir/cifar10_binary/1.0.0`; a failure is only a warning, since the arrays do not need it."""
    try:
        from cnnlab.data.tfds_cifar10 import Cifar10Binary

        with quiet_tfds(progress):
            Cifar10Binary(source, LAYOUT, data_dir=data_dir).download_and_prepare()
        shutil.rmtree(data_dir / "downloads", ignore_errors=True)  # TFDS makes it, empty
    except Exception as error:  # TFDS raises whatever its parts raise
        shutil.rmtree(data_dir, ignore_errors=True)
        warnings.warn(
            f"Expected tensorflow_datasets to prepare CIFAR-10, got {type(error).__name__}: {error}; "
            "the arrays are cached and usable without it.",
            stacklevel=2,
        )


def _download(folder: Path, missed: list[str], allowed: bool, progress: bool) -> Dataset:
    if not allowed:
        raise DatasetNotFound(_not_found(missed, "it may not be downloaded now", "allow the download"))
    try:
        archive = download(REMOTE, folder, progress=progress)
    except Unreachable as error:
        reason = f"the download failed ({error.reason})"
        raise DatasetNotFound(_not_found(missed, reason, "try again with a network")) from error
    return _load_binary(archive, progress)


def _not_found(missed: list[str], reason: str, again: str) -> str:
    (tfds_dir,) = tfds_data_dirs(None)
    looked = [*missed, f"the cache {cache.cache_root()}", str(tfds_dir)]
    if not os.environ.get("CNNLAB_DATA"):
        looked.insert(len(missed), "$CNNLAB_DATA (not set)")
    packages = "" if tfds_available() else f" and {INSTALL_TFDS}"
    return (
        f"Expected CIFAR-10 in {', '.join(looked)}, got it nowhere, and {reason}; do one of three things: "
        f"(1) {again}: it is fetched once, {REMOTE.size / 1e6:.0f} MB; "
        f"(2) get {REMOTE.url} in another way and name the folder that holds it, with --data-dir FOLDER "
        "(in Python: data_dir=) or in $CNNLAB_DATA; "
        f"(3) copy a CIFAR-10 that TensorFlow Datasets has prepared to {tfds_dir / 'cifar10'}{packages}."
    )
