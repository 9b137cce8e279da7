import threading
from pathlib import Path

import numpy as np
import pytest

from cnnlab.data import DatasetError, Split, cache


def make_split(n: int, value: int) -> Split:
    return Split(np.full((n, 2, 2, 1), value, np.uint8), np.zeros(n, np.int32))


def put(signature: str, value: int, extend=None, name: str = "x"):
    def write(draft: Path) -> tuple[str, ...]:
        cache.write_split(draft, "train", make_split(3, value))
        cache.write_split(draft, "test", make_split(2, value))
        return ("only",)

    return cache.prepare("g", signature, name=name, source=f"source {signature}", write=write, extend=extend)


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "own"))
    assert cache.cache_root() == tmp_path / "own"
    monkeypatch.delenv("CNNLAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.cache_root() == tmp_path / "xdg" / "cnnlab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_root() == tmp_path / ".cache" / "cnnlab"


def test_an_entry_is_found_by_its_source_under_the_name_that_was_asked_for() -> None:
    made = put("s", 7)
    found = cache.find_by_source("g", "s", "y")
    assert found is not None
    assert (found.name, found.source, found.fingerprint) == ("y", "source s", made.fingerprint)
    np.testing.assert_array_equal(found.train.images, 7)
    assert cache.find_by_source("g", "other", "y") is None


def test_the_same_content_from_two_sources_is_kept_once_and_extended_once(own_places: Path) -> None:
    calls: list[Path] = []
    put("s", 7, calls.append)
    assert put("t", 7, calls.append).source == "source t"
    assert len(calls) == 1
    assert len(list(own_places.glob("datasets/g/*/meta.json"))) == 1


def test_the_newest_entry_is_the_one_prepared_last() -> None:
    put("s", 1)
    put("t", 2)
    newest = cache.find_newest("g", "x")
    assert newest is not None and newest.source == "source t"
    assert cache.find_newest("nothing", "x") is None


def test_an_entry_of_another_format_is_not_believed(own_places: Path) -> None:
    put("s", 7)
    (meta,) = own_places.glob("datasets/g/*/meta.json")
    meta.write_text(meta.read_text().replace('"format": 1', '"format": 0'))
    assert cache.find_by_source("g", "s", "x") is None


def test_pickled_arrays_are_not_loaded(own_places: Path) -> None:
    put("s", 7)
    (labels,) = own_places.glob("datasets/g/*/labels_test.npy")
    np.save(labels, np.array([{"a": 1}], object), allow_pickle=True)
    assert cache.find_by_source("g", "s", "x") is None


@pytest.mark.parametrize("error", [DatasetError("bad"), KeyboardInterrupt(), ZeroDivisionError()])
def test_an_interrupted_preparation_leaves_nothing(own_places: Path, error: BaseException) -> None:
    def fail(draft: Path) -> None:
        (draft / "something").write_text("half")
        raise error

    with pytest.raises(type(error)):
        put("s", 7, fail)
    assert [path for path in own_places.rglob("*") if path.is_file() and path.suffix != ".lock"] == []
    assert list(own_places.glob("datasets/g/.*")) == []


def test_a_label_without_a_class_is_found_before_anything_is_published(own_places: Path) -> None:
    def write(draft: Path) -> tuple[str, ...]:
        cache.write_split(draft, "train", make_split(3, 1))
        cache.write_split(draft, "test", Split(np.zeros((1, 2, 2, 1), np.uint8), np.array([4], np.int32)))
        return ("only",)

    with pytest.raises(DatasetError, match="Expected test labels from 0 to 0, got 4"):
        cache.prepare("g", "s", name="x", source="s", write=write)
    assert not list(own_places.glob("datasets/g/*"))


def test_a_cache_that_cannot_be_written_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DatasetError, match="Expected a writable cache folder, got .*do set CNNLAB_CACHE"):
        put("s", 7)


def test_a_full_disk_is_an_error_that_says_where(own_places: Path) -> None:
    def full(draft: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(DatasetError, match="Expected to write to the cache .*No space left.*do make room"):
        put("s", 7, full)


def test_a_lock_is_held_by_one_at_a_time(tmp_path: Path) -> None:
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.set()
        with cache.locked(tmp_path / "x"):
            order.append("second")

    with cache.locked(tmp_path / "x"):
        thread = threading.Thread(target=second)
        thread.start()
        entered.wait(5)
        thread.join(0.1)
        with cache.locked(tmp_path / "y"):  # another lock is free
            order.append("first")
    thread.join(5)
    assert order == ["first", "second"]


def test_a_signature_follows_content_options_and_place(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    signature = cache.signature_of("k", [path], 1)
    assert signature == cache.signature_of("k", [path], 1)
    assert signature != cache.signature_of("k", [path], 2)
    assert signature != cache.signature_of("l", [path], 1)
    path.write_text("22")
    assert signature != cache.signature_of("k", [path], 1)
