"""Archives that are damaged or hostile: one clear error each, and nothing written anywhere."""

import gzip
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cnnlab.data import DatasetError, load_dataset
from cnnlab.data.cifar10_binary import FOLDER

from .conftest import leftovers

pytestmark = pytest.mark.usefixtures("without_tfds", "small_layout")


def load(path: Path):
    return load_dataset("cifar10", path, progress=False)


def member(name: str, size: int = 0, **fields) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def test_an_archive_is_read_in_the_order_of_the_batches_not_of_its_members(
    members, write_archive, records: np.ndarray
) -> None:
    data = load(write_archive(dict(reversed(members.items()))))
    np.testing.assert_array_equal(data.train.labels, records[:100, 0])
    np.testing.assert_array_equal(data.train.images[..., 2].reshape(100, -1), records[:100, 2049:])


def test_the_folder_member_and_a_leading_dot_are_fine(members, write_archive) -> None:
    dotted = {f"./{name}": content for name, content in members.items()}
    assert len(load(write_archive(dotted, member(FOLDER, type=tarfile.DIRTYPE))).test) == 20


@pytest.mark.parametrize("keep", [0.2, 0.9, 0.999])
def test_a_truncated_archive_is_an_error(members, write_archive, own_places: Path, keep: float) -> None:
    path = write_archive(members)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DatasetError, match="Expected an undamaged cifar-10-binary.tar.gz .* do fetch it again"):
        load(path)
    assert leftovers(own_places) == []


def test_a_flipped_byte_is_an_error(members, write_archive, own_places: Path) -> None:
    path = write_archive(members)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="Expected"):
        load(path)
    assert leftovers(own_places) == []


# A fixed time in the header: the names of the tests must be the same in every test process.
@pytest.mark.parametrize(
    "content",
    [b"", b"no archive at all", gzip.compress(b"no tar inside" * 100, mtime=0)],
    ids=["empty", "text", "compressed text"],
)
def test_what_is_no_archive_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match="Expected (an undamaged|6 batches)"):
        load(path)


@pytest.mark.parametrize(
    "hostile",
    [
        member("../escaped.bin"),
        member(f"{FOLDER}/../../escaped.bin"),
        member(f"{FOLDER}/.."),
        member("/tmp/escaped.bin"),
        member(f"{FOLDER}/data_batch_1.bin", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        member(f"{FOLDER}/link", type=tarfile.LNKTYPE, linkname="../../x"),
        member(f"{FOLDER}/pipe", type=tarfile.FIFOTYPE),
        member(f"{FOLDER}/deeper/data_batch_1.bin"),
        member("elsewhere/data_batch_1.bin"),
    ],
    ids=[
        "parent",
        "hidden parent",
        "folder's parent",
        "absolute",
        "symlink",
        "hard link",
        "pipe",
        "deeper",
        "elsewhere",
    ],
)
def test_a_member_that_does_not_belong_is_an_error(
    members, write_archive, own_places: Path, tmp_path: Path, hostile
) -> None:
    with pytest.raises(DatasetError, match=f"Expected only plain files in {FOLDER}/ in .*; do not trust"):
        load(write_archive(members, hostile))
    assert leftovers(own_places) == []
    assert not list(tmp_path.rglob("escaped*"))


def test_a_batch_that_is_there_twice_is_an_error(members, write_archive) -> None:
    again = member(f"{FOLDER}/test_batch.bin", 20 * 3073)
    with pytest.raises(DatasetError, match="Expected test_batch.bin once in .*, got it twice"):
        load(write_archive(members, again))


def test_a_missing_batch_is_an_error(members, write_archive) -> None:
    del members[f"{FOLDER}/data_batch_4.bin"]
    with pytest.raises(DatasetError, match="got all but data_batch_4.bin"):
        load(write_archive(members))


def test_a_batch_of_the_wrong_size_is_an_error_before_it_is_read(members, write_archive) -> None:
    members[f"{FOLDER}/data_batch_4.bin"] += b"?"
    with pytest.raises(DatasetError, match="Expected 61,460 bytes for data_batch_4.bin .* got 61,461"):
        load(write_archive(members))


def test_a_member_of_absurd_size_is_an_error_before_it_is_read(members, write_archive) -> None:
    with pytest.raises(DatasetError, match="Expected at most 61,460 bytes for readme.html in .*, got 200,000"):
        load(write_archive(members, member(f"{FOLDER}/readme.html", 200_000)))


def test_an_archive_that_unpacks_without_end_is_an_error(members, write_archive, own_places: Path) -> None:
    many = [member(f"{FOLDER}/{i}.txt", 60_000) for i in range(100)]  # 6 MB of zeros, a few kB packed
    with pytest.raises(DatasetError, match="Expected at most 4,563,064 bytes in .*, got more; do not trust"):
        load(write_archive(members, *many))
    assert leftovers(own_places) == []


def test_zeros_behind_the_end_of_the_archive_are_bounded_too(members, write_archive) -> None:
    path = write_archive(members)
    with open(path, "ab") as file:
        file.write(gzip.compress(bytes(8 << 20)))
    with pytest.raises(DatasetError, match="Expected at most 4,563,064 bytes"):
        load(path)
