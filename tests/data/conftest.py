"""What the tests of the data room share: a cache of their own, and CIFAR-10 in miniature."""

import io
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cnnlab.data import cifar10, tfds_sets
from cnnlab.data.cifar10_binary import FOLDER, Cifar10Layout

SMALL = Cifar10Layout(images_per_batch=20)


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the caches of the person who runs it; returns the cache."""
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tensorflow_datasets"))
    monkeypatch.delenv("CNNLAB_DATA", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def without_tfds(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where tensorflow_datasets is not installed; also much faster."""
    monkeypatch.setattr(cifar10, "tfds_available", lambda: False)
    monkeypatch.setattr(tfds_sets, "tfds_available", lambda: False)


@pytest.fixture
def small_layout(monkeypatch: pytest.MonkeyPatch) -> Cifar10Layout:
    """Six batches of 20 records instead of 10,000."""
    monkeypatch.setattr(cifar10, "LAYOUT", SMALL)
    return SMALL


@pytest.fixture
def records() -> np.ndarray:
    """All records of a small CIFAR-10, uint8 [120, 3073]: the label, then the three planes."""
    return small_records(seed=0)


def small_records(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 256, (20 * 6, SMALL.record_bytes), dtype=np.uint8)
    values[:, 0] = np.arange(len(values)) % 10
    return values


@pytest.fixture
def binary_folder(tmp_path: Path, small_layout: Cifar10Layout, records: np.ndarray) -> Path:
    """`cifar-10-batches-bin` in miniature."""
    return write_folder(tmp_path / "data", records)


def write_folder(parent: Path, values: np.ndarray) -> Path:
    folder = parent / FOLDER
    folder.mkdir(parents=True)
    for name, batch in zip(SMALL.batches, np.split(values, 6), strict=True):
        (folder / name).write_bytes(batch.tobytes())
    (folder / "batches.meta.txt").write_text("airplane\n")
    return folder


@pytest.fixture
def members(records: np.ndarray) -> dict[str, bytes]:
    """The regular members of the archive: path inside it and content."""
    batches = zip(SMALL.batches, np.split(records, 6), strict=True)
    contents = {f"{FOLDER}/{name}": batch.tobytes() for name, batch in batches}
    return {f"{FOLDER}/batches.meta.txt": b"airplane\n", **contents}


@pytest.fixture
def write_archive(tmp_path: Path, small_layout: Cifar10Layout) -> Callable[..., Path]:
    """Make `cifar-10-binary.tar.gz` from plain members, then hostile ones given as TarInfo."""

    def write(contents: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
        path = tmp_path / "archive" / "cifar-10-binary.tar.gz"
        path.parent.mkdir(exist_ok=True)
        with tarfile.open(path, "w:gz", compresslevel=1) as tar:
            for name, content in contents.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            for info in extra:
                tar.addfile(info, io.BytesIO(bytes(info.size)))
        return path

    return write


def leftovers(cache: Path) -> list[Path]:
    """Whatever a preparation left in the cache that is neither a lock nor a folder."""
    return [path for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.fixture
def to_tfrecord() -> Callable[[Path], None]:
    """Rewrite a prepared TFDS set in the TFRecord format that TFDS writes by default (with TensorFlow)."""

    def rewrite(folder: Path) -> None:
        import tensorflow_datasets as tfds

        info = folder / "dataset_info.json"
        builder = tfds.builder_from_directory(folder)
        for split in builder.info.splits:
            records = builder.as_data_source(split).data_source
            (old,) = builder.info.splits[split].filepaths
            content = [records[i] for i in range(len(records))]
            framed = [struct.pack("<QI", len(record), 0) + record + bytes(4) for record in content]
            Path(str(old).replace("array_record", "tfrecord")).write_bytes(b"".join(framed))
            Path(old).unlink()
        info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))

    return rewrite
