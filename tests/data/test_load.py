import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnlab.data import DatasetError, Split, cache, dataset_from_arrays, list_datasets, load, load_dataset
from cnnlab.data.image_arrays import parse_size


@pytest.mark.parametrize(
    "name", ["folder:x?size=big", "folder:x?size=", "folder:x?size=3x4x5", "folder:x?size=-1", "mnist?size=٣"]
)
def test_a_size_that_is_none_is_an_error(name: str) -> None:
    with pytest.raises(DatasetError, match="Expected size=SIDE or size=HEIGHTxWIDTH in pixels, got size="):
        load_dataset(name)


@pytest.mark.parametrize(
    "name", ["folder:x?width=3", "folder:x?size=3&size=4", "digits?channel=1", "cifar10?train=2&train=3"]
)
def test_an_unknown_or_repeated_option_is_an_error(name: str) -> None:
    with pytest.raises(DatasetError, match="Expected size=, channels=, train= and test=, each once, after the ., got"):
        load_dataset(name)


@pytest.mark.parametrize("name", ["cifar10?size=16&train=5", "cifar10?channels=1", "mnist?channels=3"])
def test_an_option_that_the_set_does_not_take_is_an_error(name: str) -> None:
    with pytest.raises(
        DatasetError, match="Expected options that .* takes, got (size|channels)=; do use it with folder:PATH"
    ):
        load_dataset(name)


@pytest.mark.parametrize("name", ["../etc/passwd", "a/../b", "Mnist", "", "mnist:latest", "a b", "x/"])
def test_a_name_that_cannot_be_is_an_error(name: str) -> None:
    with pytest.raises(DatasetError, match="Expected the name of a data set, got '.*'; do choose cifar10, digits"):
        load_dataset(name)


@pytest.mark.usefixtures("without_tfds")
def test_an_unknown_name_lists_the_nearest_ones() -> None:
    with pytest.raises(DatasetError, match="got 'cifar_10' .*; do choose one, such as cifar10 .*pip install"):
        load_dataset("cifar_10")


@pytest.mark.usefixtures("without_tfds")
def test_the_list_names_the_place_that_cnnlab_data_gives(binary_folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("CNNLAB_DATA", str(binary_folder.parent))
    assert str(binary_folder) in [record.location for record in list_datasets()]


def test_a_size_is_a_side_or_height_by_width() -> None:
    assert parse_size("64") == (64, 64)
    assert parse_size("64x48") == (64, 48)


@pytest.mark.usefixtures("without_tfds")
def test_the_list_says_where_each_set_is(binary_folder: Path) -> None:
    def location(name: str) -> str:
        return next(record.location for record in list_datasets() if record.name == name)

    assert [record.name for record in list_datasets()] == ["digits", "cifar10", "folder:PATH", "TFDS_NAME"]
    assert location("cifar10") == "not prepared"
    load_dataset("cifar10", binary_folder, progress=False)
    assert Path(location("cifar10"), "images_train.npy").is_file()


def test_the_docstring_example_holds() -> None:
    pytest.importorskip("sklearn")
    assert "(1297, 500, (8, 8, 1))" in (load.load_dataset.__doc__ or "")
    data = load_dataset("digits")
    assert (len(data.train), len(data.test), data.image_shape) == (1297, 500, (8, 8, 1))


def test_importing_the_room_is_light() -> None:
    heavy = [
        "tensorflow",
        "tensorflow_datasets",
        "array_record",
        "grain",
        "sklearn",
        "matplotlib",
        "PIL",
        "rich",
    ]
    code = f"import sys, cnnlab.data; print([name for name in {heavy} if name in sys.modules])"
    root = Path(load.__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]", shown.stderr


def test_a_set_prepared_before_loads_without_its_libraries(tmp_path: Path, own_places: Path) -> None:
    from PIL import Image

    for name in ("a", "b"):
        for i in range(10):
            (tmp_path / "f" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(tmp_path / "f" / name / f"{i}.png")
    load_dataset(f"folder:{tmp_path / 'f'}", progress=False)
    code = (
        f"import sys; from cnnlab.data import load_dataset; load_dataset('folder:{tmp_path / 'f'}'); "
        "print([name for name in ('PIL', 'rich', 'tensorflow_datasets') if name in sys.modules])"
    )
    root = Path(load.__file__).parents[2]
    shown = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def random_split(counts: list[int], seed: int) -> Split:
    """Random images, the classes mixed; `counts` says how many of each."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts), dtype=np.int32), counts))
    return Split(rng.integers(0, 256, (len(labels), 6, 5, 3), dtype=np.uint8), labels)


@pytest.fixture
def sets(tmp_path: Path, binary_folder: Path, without_tfds: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small `cifar10`, `folder:pictures` and, prepared before, a TFDS set `small_set`."""
    from PIL import Image

    monkeypatch.setenv("CNNLAB_DATA", str(binary_folder))
    monkeypatch.chdir(tmp_path)
    splits = {"train": random_split([40, 20, 11], seed=0), "test": random_split([9, 9, 5], seed=1)}
    for which, split in splits.items():
        for i, (image, label) in enumerate(zip(split.images, split.labels, strict=True)):
            path = Path("pictures", which, f"class{label}", f"{i:03}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)

    def write(draft: Path) -> tuple[str, ...]:
        for which, split in splits.items():
            cache.write_split(draft, which, split)
        return ("x", "y", "z")

    cache.prepare("tfds-small_set", "0", name="small_set", source="TFDS data set small_set", write=write)


@pytest.mark.usefixtures("sets")
@pytest.mark.parametrize(
    ("base", "train", "test"),
    [
        ("digits?", 100, 50),
        ("digits?size=9&", 99, 499),
        ("cifar10?", 25, 19),
        ("folder:pictures?", 30, 7),
        ("folder:pictures?size=4&channels=1&", 1, 22),
        ("small_set?", 70, 1),
    ],
)
def test_a_part_has_so_many_images_of_each_class_in_the_order_of_the_set(base: str, train: int, test: int) -> None:
    pytest.importorskip("sklearn")
    name = f"{base}train={train}&test={test}"
    whole, part = load_dataset(base[:-1], progress=False), load_dataset(name, progress=False)
    for some, every, n in ((part.train, whole.train, train), (part.test, whole.test, test)):
        assert len(some) == n
        in_proportion = np.bincount(every.labels, minlength=whole.num_classes) * (n / len(every))
        assert np.abs(np.bincount(some.labels, minlength=whole.num_classes) - in_proportion).max() < 1
        rest = zip(every.images, every.labels, strict=True)  # each image of the part lies behind the one before it
        for image, label in zip(some.images, some.labels, strict=True):
            assert any(label == its_label and (image == its_image).all() for its_image, its_label in rest)
    assert (part.name, part.classes, part.image_shape) == (name, whole.classes, whole.image_shape)
    shares = f"{train} of {len(whole.train):,} train and {test} of {len(whole.test)} test images"
    assert part.source == f"{whole.source}, {shares}"


def test_a_split_that_the_name_does_not_cut_stays_whole_and_so_does_one_of_which_all_are_wanted() -> None:
    pytest.importorskip("sklearn")
    whole, part = load_dataset("digits"), load_dataset("digits?test=40")
    np.testing.assert_array_equal(part.train.images, whole.train.images)
    assert len(part.test) == 40
    assert part.source == "scikit-learn's load_digits (UCI), 1,297 of 1,297 train and 40 of 500 test images"
    everything = load_dataset("digits?train=1297&test=500")
    assert (everything.name, everything.fingerprint) == ("digits?train=1297&test=500", whole.fingerprint)


def test_the_fingerprint_of_a_part_is_that_of_its_own_arrays_and_always_the_same() -> None:
    pytest.importorskip("sklearn")
    part = load_dataset("digits?train=100&test=50")
    same = dataset_from_arrays(part.train.images, part.train.labels, part.test.images, part.test.labels)
    assert part.fingerprint == same.fingerprint
    assert part.fingerprint.startswith("3508a84042bc")
    others = [load_dataset(name).fingerprint for name in ("digits", "digits?train=100", "digits?train=100&test=51")]
    assert len({part.fingerprint, *others}) == 4


@pytest.mark.parametrize("which", ["train", "test"])
@pytest.mark.parametrize("number", ["0", "-1", "", "many", "1e3", "1.5", "+5", "5_0", "٣", "007", "9" * 13])
def test_a_number_of_images_that_is_none_is_an_error(which: str, number: str) -> None:
    text = f"Expected {which}=N, a whole number of images from 1, got {which}=.*; do write {which}=1000.$"
    with pytest.raises(DatasetError, match=text):
        load_dataset(f"no_such_set?{which}={number}")


@pytest.mark.usefixtures("sets")
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "digits?train=1298",
            "Expected train=N with N from 1 to 1297, .*, got 'digits.train=1298' with train=1298; do",
        ),
        (
            "digits?size=9&test=501",
            "Expected test=N with N from 1 to 500, .* with test=501; do choose a number between.",
        ),
        ("cifar10?train=5&test=21", "Expected test=N with N from 1 to 20, "),
        ("folder:pictures?train=72", "Expected train=N with N from 1 to 71, "),
        ("small_set?test=24", "Expected test=N with N from 1 to 23, "),
    ],
)
def test_more_images_than_there_are_is_an_error(name: str, text: str) -> None:
    pytest.importorskip("sklearn")
    with pytest.raises(DatasetError, match=text) as caught:
        load_dataset(name, progress=False)
    assert "\n" not in str(caught.value)
