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
    FOLDER,
    Cifar10Layout,
    binary_files,
    find_binary,
    read_binary,
)
from cnnlab.data.dataset import Dataset
from cnnlab.data.download import RemoteFile, Unreachable, download
from cnnlab.data.errors import DatasetError, DatasetNotFound
from cnnlab.data.tfds_reader import find_prepared, tfds_data_dirs
from cnnlab.data.tfds_sets import load_prepared, quiet_tfds, tfds_available

GROUP = "cifar10"
LAYOUT = Cifar10Layout()
REMOTE = RemoteFile(
    url=f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",
    size=170_052_171,
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
)


def load_cifar10(data_dir: Path | None, *, download_allowed: bool = True, progress: bool = True) -> Dataset:
    """CIFAR-10 from the first of these that has it.

    With `data_dir`, that place alone: the folder `cifar-10-batches-bin`, the archive, or a TFDS data folder;
    what is not there is downloaded to there. Without: what is in `$CNNLAB_DATA`; what was prepared last; an
    archive that was downloaded before; a set that TFDS prepared; the download.

    A place is recognised by path, size and time of change, so what it holds now is what is loaded, and what
    was prepared from it before is not prepared again.

    Args:
        data_dir: where CIFAR-10 is, or is to be downloaded to.
        download_allowed: whether the network may be used.
        progress: show bars.

    Raises:
        DatasetNotFound: nowhere here, and no way to download it.
        DatasetError: what is there is damaged.
    """
    if data_dir is not None:
        if (dataset := _load_from(data_dir, progress)) is not None:
            return dataset
        return _download(data_dir, [str(data_dir)], download_allowed, progress)

    named = os.environ.get("CNNLAB_DATA")
    if named and (dataset := _load_from(Path(named).expanduser(), progress)) is not None:
        return dataset
    if (dataset := cache.find_newest(GROUP, GROUP)) is not None:
        return dataset
    downloads, (tfds_dir,) = cache.cache_root() / "downloads", tfds_data_dirs(None)
    for place in (downloads, tfds_dir):
        if (dataset := _load_from(place, progress)) is not None:
            return dataset
    looked = [f"$CNNLAB_DATA ({named or 'not set'})", f"the cache {cache.cache_root()}", str(tfds_dir)]
    return _download(downloads, looked, download_allowed, progress)


def cifar10_location() -> str | None:
    """Where `load_cifar10(None)` would find CIFAR-10 on this machine, or None; looks at folders only."""
    named = os.environ.get("CNNLAB_DATA")
    if named and (found := _find(Path(named).expanduser())) is not None:
        return str(found)
    if (entry := cache.newest_entry(GROUP)) is not None:
        return str(entry)
    places = (cache.cache_root() / "downloads", *tfds_data_dirs(None))
    return next((str(found) for place in places if (found := _find(place)) is not None), None)


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


def _download(folder: Path, looked: list[str], allowed: bool, progress: bool) -> Dataset:
    if not allowed:
        raise DatasetNotFound(_not_found(looked, "download=False"))
    try:
        archive = download(REMOTE, folder, progress=progress)
    except Unreachable as error:
        raise DatasetNotFound(_not_found(looked, str(error))) from error
    return _load_binary(archive, progress)


def _not_found(looked: list[str], reason: str) -> str:
    tfds = (
        ""
        if tfds_available()
        else " (reading it needs pip install tensorflow-datasets array_record importlib_resources)"
    )
    return (
        f"Expected CIFAR-10 in {', '.join(looked)}, got it nowhere and no download: {reason.rstrip('.')}. "
        "Do one of three things: "
        f"(1) with a network, call load_dataset('cifar10') ({REMOTE.size / 1e6:.0f} MB, {REMOTE.url}); "
        f"(2) put {ARCHIVE} or its folder {FOLDER} somewhere and pass data_dir=, or set CNNLAB_DATA; "
        f"(3) copy a CIFAR-10 prepared by tensorflow_datasets to ~/tensorflow_datasets/cifar10{tfds}."
    )
