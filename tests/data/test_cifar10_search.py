"""Where CIFAR-10 is looked for, in which order, and what is said when it is not where it was said to be."""

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from cnnlab.data import Dataset, DatasetError, DatasetNotFound, cifar10, load_dataset
from cnnlab.data.cifar10_binary import ARCHIVE, FOLDER
from cnnlab.data.download import RemoteFile

from .conftest import small_records, write_folder

pytestmark = pytest.mark.usefixtures("without_tfds", "small_layout")


@pytest.fixture
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar10, "download", lambda *args, **options: pytest.fail("downloaded while a copy is at hand"))


@pytest.fixture
def unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(cifar10, "REMOTE", RemoteFile(f"http://127.0.0.1:9/{ARCHIVE}", 170_052_171, ""))


def load(data_dir: Path | None = None, *, download: bool = False) -> Dataset:
    return load_dataset("cifar10", data_dir, download=download, progress=False)


def test_a_data_dir_that_holds_cifar10_wins_over_what_was_prepared_before(
    binary_folder: Path, tmp_path, capsys
) -> None:
    old = load(binary_folder)
    other = write_folder(tmp_path / "other", small_records(seed=1))
    assert load(other).fingerprint != old.fingerprint
    assert load(binary_folder).fingerprint == old.fingerprint
    assert capsys.readouterr() == ("", "")


def test_cnnlab_data_wins_over_what_was_prepared_before_and_data_dir_over_both(
    binary_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(binary_folder)
    monkeypatch.setenv("CNNLAB_DATA", str(write_folder(tmp_path / "other", small_records(seed=1)).parent))
    second = load()
    assert second.fingerprint != first.fingerprint
    assert load(binary_folder.parent).fingerprint == first.fingerprint
    assert load().fingerprint == second.fingerprint


@pytest.mark.usefixtures("no_download")
@pytest.mark.parametrize("variable", [False, True])
def test_a_named_place_without_cifar10_gives_way_to_what_was_prepared_and_one_line_says_so(
    binary_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, variable: bool
) -> None:
    prepared = load(binary_folder)
    (tmp_path / "empty").mkdir()
    name = "$CNNLAB_DATA" if variable else "data_dir"
    if variable:
        monkeypatch.setenv("CNNLAB_DATA", str(tmp_path / "empty"))
    found = load(None if variable else tmp_path / "empty", download=True)
    assert found.fingerprint == prepared.fingerprint
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"cnnlab: no CIFAR-10 in {name} {tmp_path / 'empty'} (an empty folder); "
        f"used instead: what was prepared before from official binary folder {binary_folder}\n"
    )


@pytest.mark.usefixtures("no_download")
def test_a_data_dir_without_cifar10_gives_way_to_cnnlab_data(
    binary_folder: Path, tmp_path, monkeypatch, capsys
) -> None:
    monkeypatch.setenv("CNNLAB_DATA", str(binary_folder))
    assert load(tmp_path / "nowhere", download=True).source == f"official binary folder {binary_folder}"
    said = (
        f"cnnlab: no CIFAR-10 in data_dir {tmp_path / 'nowhere'} (no such folder); used instead: official binary folder"
    )
    assert capsys.readouterr().err.startswith(said)


@pytest.mark.usefixtures("no_download")
def test_an_archive_in_the_cache_is_used_before_any_download(
    members, write_archive, own_places, tmp_path, capsys
) -> None:
    (own_places / "downloads").mkdir(parents=True)
    shutil.move(write_archive(members), own_places / "downloads" / ARCHIVE)
    assert load(download=True).source.startswith("official binary archive")
    assert capsys.readouterr().err == "", "no place was named, so there is nothing to say"
    shutil.rmtree(own_places / "datasets")
    load(tmp_path / "nowhere", download=True)
    assert f"used instead: official binary archive {own_places / 'downloads' / ARCHIVE}\n" in capsys.readouterr().err


def test_what_is_damaged_in_a_named_place_is_an_error_and_not_passed_over(binary_folder: Path) -> None:
    load(binary_folder)
    (binary_folder / "test_batch.bin").unlink()
    with pytest.raises(DatasetError, match="got all but test_batch.bin"):
        load(binary_folder)


@pytest.mark.usefixtures("unreachable")
def test_without_a_network_one_line_names_each_place_and_three_ways_and_the_address_once(tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / "other.txt").write_text("")
    with pytest.raises(DatasetNotFound) as caught:
        load(tmp_path / "place", download=True)
    text = str(caught.value)
    assert text.startswith(
        f"Expected CIFAR-10 in data_dir {tmp_path / 'place'} (none in this folder), $CNNLAB_DATA (not set), the cache "
    )
    assert "refused); do one of three things: (1) try again with a network: it is fetched once, 170 MB; (2) get" in text
    assert "with --data-dir FOLDER (in Python: data_dir=) or in $CNNLAB_DATA; (3) copy" in text
    assert "pip install tensorflow-datasets" in text, "it is not installed here"
    assert (text.count("Expected"), text.count("http"), text.count("\n")) == (1, 1, 0)


def test_a_download_that_is_not_allowed_is_said_to_be_so() -> None:
    with pytest.raises(DatasetNotFound, match=r"it may not be downloaded now; .* \(1\) allow the download"):
        load()


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("cifar-10-batches-py/", "Python"),
        ("cifar-10-python.tar.gz", "Python"),
        ("cifar-10-batches-mat/", "Matlab"),
    ],
)
def test_another_version_of_cifar10_is_recognised_beside_or_as_the_place(
    tmp_path: Path, name: str, version: str
) -> None:
    path = tmp_path / "place" / name
    path.mkdir(parents=True) if name.endswith("/") else (path.parent.mkdir(), path.write_text(""))
    expected = f"only the {version} version of it; the binary version is needed"
    with pytest.raises(DatasetNotFound, match=f"{path.parent} .{expected}.*get .*{ARCHIVE}"):
        load(path.parent)
    if path.is_dir():
        assert cifar10.cifar10_fault(path) == expected


def test_the_python_archive_itself_is_told_from_a_hostile_one(tmp_path: Path) -> None:
    path = tmp_path / "renamed.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("cifar-10-batches-py/data_batch_1")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"Pickl"))
    with pytest.raises(DatasetError, match=f"got the Python version in {path}; do get {ARCHIVE} from https://"):
        load(path)


def test_the_fault_of_a_place_is_found_by_names_and_sizes(binary_folder: Path, members, write_archive) -> None:
    archive = write_archive(members)
    assert cifar10.cifar10_fault(archive) is None
    assert cifar10.cifar10_fault(binary_folder.parent) is None
    archive.write_text("no archive")
    assert cifar10.cifar10_fault(archive.parent) == f"not a {ARCHIVE}"
    (binary_folder / "data_batch_2.bin").write_bytes(b"short")
    assert cifar10.cifar10_fault(binary_folder) == "data_batch_2.bin has 5 bytes instead of 61,460"
    (binary_folder / "data_batch_1.bin").unlink()
    assert cifar10.cifar10_fault(binary_folder) == "data_batch_1.bin is missing"


def test_a_named_place_that_may_not_be_read_is_said_to_be_so(
    binary_folder: Path, tmp_path, monkeypatch, capsys
) -> None:
    load(binary_folder)
    (tmp_path / "locked").mkdir()
    monkeypatch.setattr(cifar10.os, "access", lambda path, mode: False)  # whoever runs this may be allowed everything
    load(tmp_path / "locked")
    assert f"data_dir {tmp_path / 'locked'} (a folder that may not be read); used instead" in capsys.readouterr().err


def test_the_parent_of_many_things_is_searched_only_for_the_known_names(tmp_path: Path, records: np.ndarray) -> None:
    write_folder(tmp_path / "place" / "deeper", records)
    assert (tmp_path / "place" / "deeper" / FOLDER).is_dir()
    with pytest.raises(DatasetNotFound, match="none in this folder"):
        load(tmp_path / "place")
