"""Any image-classification set of TensorFlow Datasets: prepared without TensorFlow, decoded once."""

import contextlib
import difflib
import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np

from cnnlab.data import cache
from cnnlab.data.dataset import Dataset
from cnnlab.data.errors import DatasetError, DatasetNotFound
from cnnlab.data.image_arrays import write_images
from cnnlab.data.progress import bars_show, notice
from cnnlab.data.splitting import complement, default_test_choice
from cnnlab.data.tfds_reader import TfdsReader, find_prepared, prepared_files, tfds_data_dirs

INSTALL_TFDS = "pip install tensorflow-datasets array_record importlib_resources"


@dataclass(frozen=True)
class TfdsName:
    """`name[/config][:version]`, as TFDS spells it."""

    name: str
    config: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        config = f"/{self.config}" if self.config else ""
        return f"{self.name}{config}" + (f":{self.version}" if self.version else "")


def tfds_available() -> bool:
    """Whether what reads and writes TFDS sets is installed (nothing is imported)."""
    return all(find_spec(package) for package in ("tensorflow_datasets", "array_record", "importlib_resources"))


def load_tfds(
    which: TfdsName,
    data_dir: Path | None,
    size: tuple[int, int] | None,
    *,
    known: tuple[str, ...],
    download: bool,
    progress: bool,
) -> Dataset:
    """Load a TFDS set, preparing and decoding it the first time.

    Looked for in this order: prepared on disk (in `data_dir` if given, else in `$TFDS_DATA_DIR` or
    `~/tensorflow_datasets`); the cache; prepared by the stock builder, with a download. Where the cache serves in
    the place of `data_dir`, one line on standard error says so.

    Args:
        which: the set.
        data_dir: TFDS's own data folder, where the set is or is to be made.
        size: `(height, width)` to resize to, or None.
        known: names that are not TFDS sets, for the suggestions when the name is unknown.
        download: whether the stock builder may fetch the set.
        progress: show bars.

    Raises:
        DatasetNotFound: not on disk, and it may not or cannot be fetched.
        DatasetError: unknown name, or a set that is not image classification (see `TfdsReader`).
    """
    group = "tfds-" + "-".join(str(which).replace(":", "/").split("/"))
    if size is not None:
        group += f"-{size[0]}x{size[1]}"
    data_dirs = tfds_data_dirs(data_dir)
    folder = find_prepared(which.name, which.config, which.version, data_dirs)
    if folder is None:
        if (dataset := cache.find_newest(group, str(which))) is not None:
            if data_dir is not None:
                notice(
                    f"no {which} in data_dir {data_dir}; used instead: what was prepared before from {dataset.source}"
                )
            return dataset
        folder = _prepare_stock(which, data_dirs[0], known, download, progress)
    return load_prepared(folder, group, str(which), size, progress=progress)


def load_prepared(
    folder: Path, group: str, name: str, size: tuple[int, int] | None, *, progress: bool = True
) -> Dataset:
    """Load a set that TFDS has prepared in `folder`; decodes it unless the cache has it."""
    signature = cache.signature_of("tfds", prepared_files(folder), size)
    if (dataset := cache.find_by_source(group, signature, name)) is not None:
        return dataset
    _require_tfds(name)

    def write(draft: Path) -> tuple[str, ...]:
        reader = TfdsReader(folder)
        train_split, train_at, test_split, test_at, labels = _choose_splits(reader)
        for part, split, at in (("train", train_split, train_at), ("test", test_split, test_at)):
            np.save(draft / f"labels_{part}.npy", labels[split][at])
            write_images(
                draft / f"images_{part}.npy",
                reader.images(split, at),
                len(at),
                size=size,
                channels=reader.channels,
                upright=False,
                progress=progress,
            )
        return reader.classes

    return cache.prepare(group, signature, name=name, source=f"TFDS data set {folder}", write=write)


def _choose_splits(reader: TfdsReader) -> tuple[str, np.ndarray, str, np.ndarray, dict[str, np.ndarray]]:
    """`(train split, positions, test split, positions, labels)`; a lone "train" is cut 90 / 10."""
    if not reader.splits.get("train"):
        raise DatasetError(
            f"Expected a split named train in {reader.folder}, got {', '.join(reader.splits) or 'none'}; "
            "do read it with tensorflow_datasets and use dataset_from_arrays."
        )
    labels = {"train": reader.labels("train")}
    everything = np.arange(len(labels["train"]))
    for name in ("test", "validation"):
        if reader.splits.get(name):
            labels[name] = reader.labels(name)
            if labels[name].min() >= 0:  # some sets hide the labels of their test split
                return "train", everything, name, np.arange(len(labels[name])), labels
    chosen = default_test_choice(labels["train"])
    return "train", complement(chosen, len(everything)), "train", chosen, labels


def _prepare_stock(which: TfdsName, data_dir: Path, known: tuple[str, ...], download: bool, progress: bool) -> Path:
    """Let the stock builder make the set in `data_dir`."""
    stock: list[str] = []
    if tfds_available():
        import tensorflow_datasets as tfds

        stock = tfds.list_builders(with_community_datasets=False)
    if which.name not in stock:
        near = difflib.get_close_matches(which.name, [*known, *stock], n=3, cutoff=0.5) or known
        hint = "" if stock else f" (for the sets of TFDS, {INSTALL_TFDS})"
        raise DatasetError(
            f"Expected the name of a data set, got '{which}' (unknown, and not prepared in {data_dir}); "
            f"do choose one, such as {', '.join(near)}{hint}."
        )
    if not download:
        raise DatasetNotFound(
            f"Expected {which} prepared in {data_dir}, got nothing there and download=False; "
            "do allow the download, or pass the data_dir that holds it."
        )
    from cnnlab.data.tfds_shim import prepare_stock

    try:
        with cache.locked(data_dir / which.name), quiet_tfds(progress):
            return prepare_stock(tfds.builder_cls(which.name), str(which), data_dir)
    except DatasetError:
        raise
    except Exception as error:  # TFDS, requests and the builders raise what they like
        unreachable = isinstance(error, OSError) and type(error).__module__.startswith(("requests", "urllib"))
        kind = DatasetNotFound if unreachable else DatasetError
        raise kind(
            f"Expected TFDS to prepare {which} in {data_dir}, got {type(error).__name__}: "
            f"{' '.join(str(error).split())[:300]}; do check the network, or prepare it elsewhere "
            "(file_format='array_record') and pass its data_dir."
        ) from error


@contextlib.contextmanager
def quiet_tfds(progress: bool) -> Iterator[None]:
    """TFDS's bars and prints go to standard error where bars show and `progress`, else nowhere.

    TFDS's own setting is put back afterwards.
    """
    from tensorflow_datasets.core.utils import tqdm_utils

    shown = progress and bars_show()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr if shown else io.StringIO()))
        if not shown:
            stack.enter_context(mock.patch.object(tqdm_utils, "_active", False))
        yield


def _require_tfds(name: str) -> None:
    if not tfds_available():
        raise DatasetError(
            f"Expected tensorflow-datasets, array_record and importlib_resources to decode {name}, got none; "
            f"do {INSTALL_TFDS} (TensorFlow is not needed)."
        )
