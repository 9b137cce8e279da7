from pathlib import Path

import numpy as np
import pytest

from cnnlab.data import DatasetError, cifar10, load_dataset

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")


def prepared_in(cache: Path) -> Path:
    (folder,) = cache.glob("datasets/cifar10/*/tfds/cifar10_binary/1.0.0")
    return folder


def test_what_is_prepared_is_a_plain_tfds_set_in_the_official_order(
    binary_folder: Path, records: np.ndarray, own_places: Path
) -> None:
    data = load_dataset("cifar10", binary_folder, progress=False)
    builder = tfds.builder_from_directory(prepared_in(own_places))
    assert tuple(builder.info.features["label"].names) == data.classes
    assert builder.info.disable_shuffling
    for split, part in (("train", records[:100]), ("test", records[100:])):
        source = builder.as_data_source(split)
        examples = [source[i] for i in range(len(source))]
        np.testing.assert_array_equal([example["label"] for example in examples], part[:, 0])
        planes = np.stack([example["image"] for example in examples]).transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(planes.reshape(-1, 3072), part[:, 1:])


def test_the_tfds_set_lies_whole_beside_the_arrays_with_nothing_else(binary_folder: Path, own_places: Path) -> None:
    load_dataset("cifar10", binary_folder, progress=False)
    entry = prepared_in(own_places).parents[2]
    assert sorted(path.name for path in entry.iterdir()) == [
        "images_test.npy", "images_train.npy", "labels_test.npy", "labels_train.npy", "meta.json", "tfds",
    ]  # fmt: skip
    assert [path.name for path in (entry / "tfds").iterdir()] == ["cifar10_binary"]


@pytest.mark.parametrize("progress", [False, True])
def test_preparing_prints_nothing_unless_progress_is_wanted_on_a_terminal(binary_folder, capfd, progress: bool) -> None:
    load_dataset("cifar10", binary_folder, progress=progress)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_cifar10_that_tfds_prepared_is_found_and_equal(
    binary_folder: Path, own_places: Path, tmp_path: Path, monkeypatch, to_tfrecord, file_format: str
) -> None:
    official = load_dataset("cifar10", binary_folder, progress=False)
    target = tmp_path / "tensorflow_datasets" / "cifar10" / "3.0.2"
    target.parent.mkdir(parents=True)
    prepared_in(own_places).rename(target)
    if file_format == "tfrecord":
        to_tfrecord(target)
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "empty"))
    data = load_dataset("cifar10", download=False, progress=False)
    assert data.source == f"TFDS data set {target}"
    assert data.fingerprint == official.fingerprint
    explicit = load_dataset("cifar10", tmp_path / "tensorflow_datasets", download=False, progress=False)
    assert explicit.fingerprint == official.fingerprint
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "another"))
    assert load_dataset("cifar10", tmp_path / "nowhere", progress=False).source == data.source, "not downloaded"


def test_a_tfds_set_of_the_wrong_length_is_an_error(
    binary_folder: Path, own_places: Path, tmp_path: Path, monkeypatch
) -> None:
    load_dataset("cifar10", binary_folder, progress=False)
    target = tmp_path / "tensorflow_datasets" / "cifar10" / "3.0.2"
    target.parent.mkdir(parents=True)
    prepared_in(own_places).rename(target)
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr(cifar10, "LAYOUT", cifar10.Cifar10Layout(21))
    with pytest.raises(DatasetError, match=r"Expected \(105, 21\) train and test images in .*, got \(100, 20\)"):
        load_dataset("cifar10", download=False, progress=False)


def test_a_tfds_that_fails_costs_a_warning_and_not_the_data(binary_folder: Path, monkeypatch, own_places) -> None:
    from cnnlab.data import tfds_cifar10

    def fail(self, dl_manager):
        raise RuntimeError("protobuf says no")

    monkeypatch.setattr(tfds_cifar10.Cifar10Binary, "_split_generators", fail)
    with pytest.warns(UserWarning, match="got RuntimeError: protobuf says no; the arrays are cached"):
        data = load_dataset("cifar10", binary_folder, progress=False)
    assert len(data.train) == 100
    assert not list(own_places.rglob("tfds"))
