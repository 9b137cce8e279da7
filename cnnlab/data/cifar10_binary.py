"""The official binary layout of CIFAR-10, read from its folder or straight from its archive.

A record is one label byte and then the image: the red, the green and the blue plane, each row by row. Five
files hold 10,000 training records each, a sixth the 10,000 test records.

Source: https://www.cs.toronto.edu/~kriz/cifar.html, section "Binary version".
"""

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cnnlab.data.dataset import Split
from cnnlab.data.errors import DatasetError

FOLDER = "cifar-10-batches-bin"
ARCHIVE = "cifar-10-binary.tar.gz"
OTHER_VERSIONS = {"cifar-10-batches-py": "Python", "cifar-10-batches-mat": "Matlab"}
HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Cifar10Layout:
    """How many records the files hold; tests use small ones.

    Attributes:
        images_per_batch: records in each file.
        train_batches: training files; there is one test file.
    """

    images_per_batch: int = 10_000
    train_batches: int = 5

    side = 32
    record_bytes = 1 + 3 * side * side

    @property
    def batch_bytes(self) -> int:
        """Exact size of every batch file."""
        return self.images_per_batch * self.record_bytes

    @property
    def batches(self) -> tuple[str, ...]:
        """File names: the training batches in order, then the test batch."""
        return (*(f"data_batch_{i}.bin" for i in range(1, self.train_batches + 1)), "test_batch.bin")


def find_binary(place: Path) -> Path | None:
    """The folder with the batches or the archive at `place`, or None.

    Args:
        place: the folder with the batches, its parent, a folder with the archive, or the archive itself (any
            name).
    """
    if os.path.isfile(place):  # unlike Path.is_file, no error where the place may not be looked at
        return place
    for folder in (place, place / FOLDER):
        if any(folder.glob("*_batch*.bin")):
            return folder
    return archive if os.path.isfile(archive := place / ARCHIVE) else None


def other_version(place: Path) -> str | None:
    """`"Python"` or `"Matlab"` when that version of CIFAR-10 is at `place`, folder or archive, else None."""
    for folder, version in OTHER_VERSIONS.items():
        archive = f"cifar-10-{version.lower()}.tar.gz"
        if place.name in (folder, archive) or os.path.isdir(place / folder) or os.path.isfile(place / archive):
            return version
    return None


def binary_fault(source: Path, layout: Cifar10Layout) -> str | None:
    """What is wrong with what `find_binary` found, in a few words; looks at names and sizes only."""
    if source.is_file():
        try:
            with open(source, "rb") as file:
                return None if file.read(2) == _GZIP else f"not a {ARCHIVE}"
        except OSError as error:
            return error.strerror or type(error).__name__
    for name in layout.batches:
        path = source / name
        if not path.is_file():
            return f"{name} is missing"
        if (size := path.stat().st_size) != layout.batch_bytes:
            return f"{name} has {size:,} bytes instead of {layout.batch_bytes:,}"
    return None


def binary_files(source: Path, layout: Cifar10Layout) -> list[Path]:
    """The files that make up what `find_binary` found, for a signature; a missing batch is left out."""
    if source.is_file():
        return [source]
    return [path for name in layout.batches if (path := source / name).is_file()]


def read_binary(source: Path, layout: Cifar10Layout) -> tuple[Split, Split]:
    """Read all of CIFAR-10 in its official order.

    Args:
        source: what `find_binary` found.
        layout: how many records to expect.

    Returns:
        `(train, test)`, images `uint8 [50000, 32, 32, 3]` and `[10000, 32, 32, 3]`.

    Raises:
        DatasetError: a batch is missing, twice there, of the wrong size or holds a label above 9; the archive
            is damaged, or has a member that does not belong in it. Nothing is ever extracted to disk.
    """
    n = layout.images_per_batch
    total = n * len(layout.batches)
    images = np.empty((total, layout.side, layout.side, 3), np.uint8)  # [n, h, w, c]
    labels = np.empty(total, np.int32)
    missing = list(layout.batches)
    batches = _archive_batches(source, layout) if source.is_file() else _folder_batches(source, layout)
    for name, content in batches:
        if name not in missing:
            raise DatasetError(f"Expected {name} once in {source}, got it twice; do fetch the archive again.")
        missing.remove(name)
        at = layout.batches.index(name) * n
        images[at : at + n], labels[at : at + n] = _parse(content, f"{name} of {source}", layout)
    if missing:
        raise DatasetError(
            f"Expected {len(layout.batches)} batches in {source}, got all but {', '.join(missing)}; do fetch it again."
        )
    test = total - n
    return Split(images[:test], labels[:test]), Split(images[test:], labels[test:])


def _parse(content: bytes, name: str, layout: Cifar10Layout) -> tuple[np.ndarray, np.ndarray]:
    """Images `uint8 [n, h, w, c]` and labels `uint8 [n]` of one batch."""
    if len(content) != layout.batch_bytes:
        raise DatasetError(_wrong_size(name, len(content), layout))
    records = np.frombuffer(content, np.uint8).reshape(-1, layout.record_bytes)  # [n, 1 + c*h*w]
    labels = records[:, 0]
    if labels.max() >= len(CLASSES):
        raise DatasetError(
            f"Expected labels from 0 to {len(CLASSES) - 1} in {name}, got {labels.max()}; do fetch it again."
        )
    planes = records[:, 1:].reshape(-1, 3, layout.side, layout.side)  # [n, c, h, w]
    return planes.transpose(0, 2, 3, 1), labels


def _folder_batches(folder: Path, layout: Cifar10Layout) -> Iterator[tuple[str, bytes]]:
    for name in layout.batches:
        path = folder / name
        if not path.is_file():
            continue
        try:
            if path.stat().st_size != layout.batch_bytes:
                raise DatasetError(_wrong_size(f"{name} of {folder}", path.stat().st_size, layout))
            yield name, path.read_bytes()
        except OSError as error:
            raise DatasetError(f"Expected to read {path}, got '{error}'; do check the file.") from error


def _archive_batches(archive: Path, layout: Cifar10Layout) -> Iterator[tuple[str, bytes]]:
    """Walk the archive as a stream; what is not a batch is looked at and passed over."""
    limit = layout.batch_bytes * len(layout.batches) + (4 << 20)  # the batches, two small texts, headers
    try:
        with gzip.open(archive, "rb") as unpacked:
            stream = _Limited(unpacked, limit, archive)
            with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
                for member in tar:
                    name = _checked_name(member, archive, layout)
                    if name in layout.batches and (file := tar.extractfile(member)) is not None:
                        yield name, file.read()
            while stream.read(1 << 20):  # to the end, where gzip verifies its checksum
                pass
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise DatasetError(
            f"Expected an undamaged {ARCHIVE} (tar, gzip) at {archive}, got '{error}'; do fetch it again."
        ) from error


def _checked_name(member: tarfile.TarInfo, archive: Path, layout: Cifar10Layout) -> str:
    """The file name of a member of `cifar-10-batches-bin/`; "" for that folder itself."""
    parts = tuple(part for part in member.name.split("/") if part not in ("", "."))
    if parts and parts[0] in OTHER_VERSIONS:
        raise DatasetError(
            f"Expected the binary version of CIFAR-10, got the {OTHER_VERSIONS[parts[0]]} version in {archive}; "
            f"do get {ARCHIVE} from {HOMEPAGE}."
        )
    plain = member.isdir() if len(parts) == 1 else member.isreg() and len(parts) == 2
    if member.name.startswith("/") or ".." in parts or parts[:1] != (FOLDER,) or not plain:
        raise DatasetError(
            f"Expected only plain files in {FOLDER}/ in {archive}, got '{member.name}'; "
            "do not trust this archive, fetch the official one."
        )
    name = parts[1] if len(parts) == 2 else ""
    if name in layout.batches and member.size != layout.batch_bytes:
        raise DatasetError(_wrong_size(f"{name} of {archive}", member.size, layout))
    if member.size > layout.batch_bytes:
        raise DatasetError(
            f"Expected at most {layout.batch_bytes:,} bytes for {name} in {archive}, got {member.size:,}; "
            "do not trust this archive, fetch the official one."
        )
    return name


class _Limited:
    """A stream that gives at most `limit` bytes: a small archive cannot unpack into a huge one."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, limit: int, archive: Path) -> None:
        self._stream, self._limit, self._left, self._archive = stream, limit, limit, archive

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise DatasetError(
                f"Expected at most {self._limit:,} bytes in {self._archive}, got more; "
                "do not trust this archive, fetch the official one."
            )
        return content


def _wrong_size(name: str, got: int, layout: Cifar10Layout) -> str:
    return (
        f"Expected {layout.batch_bytes:,} bytes for {name} ({layout.images_per_batch:,} records of "
        f"{layout.record_bytes}), got {got:,}; do fetch it again."
    )
