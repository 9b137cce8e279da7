"""TFDS sets by name, with small sets that builders of our own prepare: there is no network in the tests."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnlab.data import DatasetError, DatasetNotFound, list_datasets, load_dataset, tfds_sets
from cnnlab.data.tfds_reader import find_prepared

tfds = pytest.importorskip("tensorflow_datasets")
pytest.importorskip("array_record")

Example = tuple[np.ndarray, int]


def examples(count: int, seed: int, shape: tuple[int, int] = (5, 4)) -> list[Example]:
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, 256, (*shape, 3), dtype=np.uint8), i % 3) for i in range(count)]


@pytest.fixture
def prepare(tmp_path: Path) -> Callable[..., Path]:
    """Prepare a set `name` with the given splits in a TFDS data folder; returns that folder."""

    def make(name: str, splits: dict[str, list[Example]], features=None, config: str | None = None) -> Path:
        with tfds.core.registered.skip_registration():

            class Small(tfds.core.GeneratorBasedBuilder):
                VERSION = tfds.core.Version("1.2.3")
                BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=config)] if config else []

                def _info(self):
                    fields = features or {
                        "image": tfds.features.Image(shape=(None, None, 3)),
                        "label": tfds.features.ClassLabel(names=["x", "y", "z"]),
                    }
                    return tfds.core.DatasetInfo(
                        builder=self, features=tfds.features.FeaturesDict(fields), disable_shuffling=True
                    )

                def _split_generators(self, dl_manager):
                    return {split: self._generate_examples(rows) for split, rows in splits.items()}

                def _generate_examples(self, rows):
                    for i, (image, label) in enumerate(rows):
                        if features is None:
                            yield i, {"image": Image.fromarray(image), "label": label}
                        else:
                            yield i, {key: 0 for key in features}

        Small.name = name
        data_dir = tmp_path / "tensorflow_datasets"
        with tfds_sets.quiet_tfds(False):
            Small(data_dir=data_dir, file_format="array_record").download_and_prepare()
        return data_dir

    return make


@pytest.mark.parametrize("explicit", [True, False])
def test_a_prepared_set_is_read_by_name(prepare, explicit: bool) -> None:
    rows = {"train": examples(9, 0), "test": examples(6, 1)}
    data_dir = prepare("small_set", rows)
    data = load_dataset("small_set", data_dir if explicit else None, progress=False)
    for split, part in ((data.train, rows["train"]), (data.test, rows["test"])):
        np.testing.assert_array_equal(split.images, np.stack([image for image, _ in part]))
        assert split.labels.tolist() == [label for _, label in part]
    assert data.classes == ("x", "y", "z") and data.name == "small_set"


def test_a_second_load_decodes_nothing(prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare("small_set", {"train": examples(9, 0), "test": examples(6, 1)})
    first = load_dataset("small_set", progress=False)
    monkeypatch.setattr(tfds_sets, "TfdsReader", lambda folder: pytest.fail("read again"))
    assert load_dataset("small_set", progress=False).fingerprint == first.fingerprint
    monkeypatch.setattr(tfds_sets, "find_prepared", lambda *args: None)
    assert load_dataset("small_set", progress=False).fingerprint == first.fingerprint, "the cache alone will do"
    assert "small_set" in [record.name for record in list_datasets()]


def test_a_data_dir_without_the_set_gives_way_to_what_was_prepared_before(prepare, tmp_path: Path, capsys) -> None:
    first = load_dataset("small_set", prepare("small_set", {"train": examples(9, 0)}), progress=False)
    found = load_dataset("small_set", tmp_path / "nowhere", progress=False)
    assert found.fingerprint == first.fingerprint
    said = f"cnnlab: no small_set in data_dir {tmp_path / 'nowhere'}; used instead: what was prepared before from TFDS"
    assert capsys.readouterr().err.startswith(said)


def test_tfrecord_files_are_read_without_tensorflow(prepare, to_tfrecord) -> None:
    rows = {"train": examples(20, 0)}
    data_dir = prepare("small_set", rows)
    before = load_dataset("small_set", progress=False)
    to_tfrecord(data_dir / "small_set" / "1.2.3")
    after = load_dataset("small_set", progress=False)
    assert after.fingerprint == before.fingerprint
    (path,) = data_dir.rglob("*.tfrecord*")
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DatasetError, match="Expected whole records in .*, got a cut one"):
        load_dataset("small_set", progress=False)


def test_validation_serves_as_test_and_a_hidden_test_split_is_passed_over(prepare) -> None:
    hidden = [(image, -1) for image, _ in examples(4, 3)]
    prepare("small_set", {"train": examples(9, 0), "validation": examples(6, 1), "test": hidden})
    data = load_dataset("small_set", progress=False)
    assert (len(data.train), len(data.test)) == (9, 6)


def test_a_lone_train_split_gives_a_stratified_tenth(prepare) -> None:
    prepare("small_set", {"train": examples(60, 0)})
    data = load_dataset("small_set", progress=False)
    assert np.bincount(data.train.labels).tolist() == [18, 18, 18]
    assert np.bincount(data.test.labels).tolist() == [2, 2, 2]
    both = np.concatenate([data.train.images, data.test.images])
    assert len({image.tobytes() for image in both}) == 60


def test_several_sizes_are_an_error_and_size_resizes(prepare) -> None:
    prepare("small_set", {"train": examples(6, 0) + examples(3, 1, (8, 8)), "test": examples(3, 2)})
    with pytest.raises(DatasetError, match=r"got 2: 5x4 \(6 images\), 8x8 \(3 images\); do add \?size=5x4"):
        load_dataset("small_set", progress=False)
    assert load_dataset("small_set?size=7", progress=False).image_shape == (7, 7, 3)


def test_a_set_that_is_no_image_classification_is_an_error(prepare) -> None:
    features = {"number": tfds.features.Scalar(np.int64), "label": tfds.features.ClassLabel(names=["x"])}
    prepare("numbers", {"train": examples(2, 0)}, features)
    with pytest.raises(DatasetError, match="Expected an image-classification set .* got numbers with .*Scalar"):
        load_dataset("numbers", progress=False)


def test_one_configuration_is_found_and_several_must_be_named(prepare) -> None:
    rows = {"train": examples(9, 0), "test": examples(6, 1)}
    prepare("small_set", rows, config="first")
    assert len(load_dataset("small_set", progress=False).train) == 9
    prepare("small_set", {**rows, "train": examples(12, 0)}, config="second")
    with pytest.raises(DatasetError, match="got first, second in .*; do name one, such as small_set/first"):
        load_dataset("small_set", progress=False)
    assert len(load_dataset("small_set/second:1.2.3", progress=False).train) == 12


def test_the_newest_version_is_taken(tmp_path: Path) -> None:
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        (tmp_path / "s" / version).mkdir(parents=True)
        (tmp_path / "s" / version / "dataset_info.json").write_text("{}")
    (tmp_path / "s" / "2.0.0").mkdir()  # unfinished
    found = find_prepared("s", None, None, [tmp_path])
    assert found == tmp_path / "s" / "1.10.0"
    assert find_prepared("s", None, "1.2.0", [tmp_path]) == tmp_path / "s" / "1.2.0"


def test_a_damaged_preparation_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "tensorflow_datasets" / "broken" / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text("{nonsense")
    with pytest.raises(DatasetError, match="Expected a prepared TFDS data set in .*broken.*; do prepare it again"):
        load_dataset("broken", progress=False)


def test_an_unknown_name_lists_the_nearest_stock_sets() -> None:
    with pytest.raises(DatasetError, match="got 'fashion_mnits' .*; do choose one, such as fashion_mnist"):
        load_dataset("fashion_mnits")


def test_a_stock_set_that_may_not_be_downloaded_is_not_found() -> None:
    with pytest.raises(DatasetNotFound, match="Expected mnist prepared in .*, got nothing there and download=False"):
        load_dataset("mnist", download=False)


def test_a_stock_set_that_cannot_be_downloaded_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import requests
    from tensorflow_datasets.core.download import downloader

    def unreachable(url, **kwargs):
        raise requests.exceptions.ConnectionError("no network")

    monkeypatch.setattr(downloader, "_open_with_requests", unreachable)
    with pytest.raises(DatasetNotFound, match="Expected TFDS to prepare mnist in .*, got ConnectionError"):
        load_dataset("mnist", progress=False)


def test_a_prepared_set_without_tfds_says_what_to_install(prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare("small_set", {"train": examples(9, 0), "test": examples(6, 1)})
    monkeypatch.setattr(tfds_sets, "tfds_available", lambda: False)
    with pytest.raises(DatasetError, match="to decode small_set, got none; do pip install tensorflow-datasets"):
        load_dataset("small_set", progress=False)
