import hashlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cnnlab.data import DatasetError, DatasetNotFound, cifar10, load_dataset
from cnnlab.data.cifar10_binary import CLASSES, Cifar10Layout
from cnnlab.data.download import RemoteFile

from .conftest import leftovers

pytestmark = pytest.mark.usefixtures("without_tfds", "small_layout")


def load(data_dir: Path | None = None):
    return load_dataset("cifar10", data_dir, download=False, progress=False)


def test_the_official_layout_has_sixty_thousand_records_of_3073_bytes() -> None:
    official = Cifar10Layout()
    assert official.batch_bytes == 30_730_000
    assert official.batches[0] == "data_batch_1.bin" and official.batches[-1] == "test_batch.bin"
    assert len(official.batches) == 6


def test_images_are_the_planes_of_the_records_in_their_order(binary_folder: Path, records: np.ndarray) -> None:
    data = load(binary_folder)
    planes = records[:, 1:].reshape(120, 3, 32, 32)
    for split, part in ((data.train, slice(0, 100)), (data.test, slice(100, 120))):
        np.testing.assert_array_equal(split.labels, records[part, 0])
        for channel in range(3):
            np.testing.assert_array_equal(split.images[..., channel], planes[part, channel])
    assert data.classes == CLASSES and data.image_shape == (32, 32, 3)
    assert data.source == f"official binary folder {binary_folder}"


def test_the_folder_its_parent_and_the_archive_give_the_same_data(
    binary_folder: Path, members, write_archive, own_places: Path
) -> None:
    archive = write_archive(members)
    places = [binary_folder, binary_folder.parent, archive, archive.parent]
    assert len({load(place).fingerprint for place in places}) == 1
    assert len(list((own_places / "datasets" / "cifar10").glob("[0-9a-f]*"))) == 1, "one entry, kept once"


def test_a_second_load_maps_the_cache_and_reads_no_source(binary_folder: Path, monkeypatch) -> None:
    first = load(binary_folder)
    monkeypatch.setattr(cifar10, "read_binary", lambda *args: pytest.fail("read again"))
    second = load(binary_folder)
    assert isinstance(second.train.images, np.memmap)
    assert not second.train.images.flags.writeable
    assert second.fingerprint == first.fingerprint
    np.testing.assert_array_equal(second.train.images, first.train.images)


def test_what_was_prepared_is_found_without_its_source(binary_folder: Path) -> None:
    fingerprint = load(binary_folder).fingerprint
    for path in binary_folder.iterdir():
        path.unlink()
    assert load().fingerprint == fingerprint


def test_a_source_that_changed_is_read_again(binary_folder: Path) -> None:
    before = load(binary_folder)
    path = binary_folder / "test_batch.bin"
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    after = load(binary_folder)
    assert after.fingerprint != before.fingerprint
    assert int(np.sum(after.test.images != before.test.images)) == 1


def test_what_is_nowhere_is_downloaded_verified_and_prepared(
    members, write_archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    archive = write_archive(members)
    content = archive.read_bytes()
    remote = RemoteFile(archive.as_uri(), len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(cifar10, "REMOTE", remote)
    assert len(load_dataset("cifar10", tmp_path / "here", progress=False).train) == 100
    assert (tmp_path / "here" / archive.name).read_bytes() == content


@pytest.mark.parametrize("name", ["data_batch_3.bin", "test_batch.bin"])
def test_a_missing_batch_is_named_and_nothing_is_left(binary_folder: Path, own_places: Path, name: str) -> None:
    (binary_folder / name).unlink()
    with pytest.raises(DatasetError, match=f"Expected 6 batches in .*, got all but {name}; do fetch it again"):
        load(binary_folder)
    assert leftovers(own_places) == []


def test_a_batch_of_the_wrong_size_is_named(binary_folder: Path, own_places: Path) -> None:
    path = binary_folder / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        DatasetError, match="Expected 61,460 bytes for data_batch_2.bin .*20 records of 3073.*got 61,459"
    ):
        load(binary_folder)
    assert leftovers(own_places) == []


def test_a_label_above_nine_is_named(binary_folder: Path, own_places: Path) -> None:
    path = binary_folder / "data_batch_5.bin"
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(DatasetError, match="Expected labels from 0 to 9 in data_batch_5.bin of .*, got 10"):
        load(binary_folder)
    assert leftovers(own_places) == []


def run(script: str, **environment: str) -> subprocess.Popen:
    """Start Python on a script that has `load_dataset` and the small layout."""
    head = f"""
        import sys; sys.path.insert(0, {str(Path(cifar10.__file__).parents[2])!r})
        from pathlib import Path
        from cnnlab.data import cache, cifar10, load_dataset
        from cnnlab.data.cifar10_binary import Cifar10Layout
        cifar10.LAYOUT = Cifar10Layout(20)
        cifar10.tfds_available = lambda: False
    """
    code = textwrap.dedent(head) + textwrap.dedent(script)
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **environment})


def test_two_processes_that_prepare_at_once_make_one_entry(binary_folder: Path, own_places: Path) -> None:
    script = f"load_dataset('cifar10', {str(binary_folder)!r}, progress=False)"
    assert [process.wait(60) for process in [run(script) for _ in range(2)]] == [0, 0]
    group = own_places / "datasets" / "cifar10"
    assert len([path for path in group.iterdir() if path.name != "sources"]) == 1
    assert len(load(binary_folder).train) == 100


def test_a_killed_preparation_leaves_nothing_that_is_believed(binary_folder: Path, own_places: Path) -> None:
    script = f"""
        import os, signal
        write = cache.write_split
        def die(folder, which, split):
            write(folder, which, split)
            os.kill(os.getpid(), signal.SIGKILL)
        cache.write_split = die
        load_dataset('cifar10', {str(binary_folder)!r}, progress=False)
    """
    assert run(script).wait(60) == -9
    group = own_places / "datasets" / "cifar10"
    assert len(list(group.glob(".draft-*"))) == 1, "the kill came in the middle"
    with pytest.raises(DatasetNotFound):
        load()
    assert len(load(binary_folder).train) == 100
    assert list(group.glob(".draft-*")) == []


def test_a_damaged_entry_is_prepared_again(binary_folder: Path, own_places: Path) -> None:
    load(binary_folder)
    (images,) = (own_places / "datasets" / "cifar10").glob("*/images_train.npy")
    images.write_bytes(images.read_bytes()[:1000])
    assert load(binary_folder).train.images.sum() > 0
