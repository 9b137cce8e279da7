from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnlab.data import DatasetError, folder, load_dataset

from .conftest import leftovers


def draw(path: Path, value: int, height: int = 6, width: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path)


@pytest.fixture
def split_folder(tmp_path: Path) -> Path:
    root = tmp_path / "pets"
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                draw(root / part / name / f"{i}.png", 100 * label + 10 * i + (part == "test"))
    return root


def load(root: Path, query: str = ""):
    return load_dataset(f"folder:{root}{query}", progress=False)


def test_images_come_in_the_order_of_class_and_file_name(split_folder: Path) -> None:
    data = load(split_folder)
    assert data.classes == ("cat", "dog")
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 100, 110, 120, 130]
    assert data.train.labels.tolist() == [0] * 4 + [1] * 4
    assert data.test.images[:, 5, 5, 2].tolist() == [1, 11, 101, 111]
    assert data.image_shape == (6, 6, 3)
    assert (data.name, data.source) == (f"folder:{split_folder}", f"image folder {split_folder}")


def test_hidden_files_and_other_suffixes_are_passed_over(split_folder: Path) -> None:
    for name in (".hidden.png", "notes.txt", "Thumbs.db"):
        (split_folder / "train" / "cat" / name).write_text("no image")
    (split_folder / "train" / ".git").mkdir()
    assert len(load(split_folder).train) == 8


def test_a_second_load_decodes_nothing_until_a_file_changes(split_folder: Path, monkeypatch) -> None:
    first = load(split_folder)
    with monkeypatch.context() as patched:
        patched.setattr(folder, "write_images", lambda *args, **kwargs: pytest.fail("decoded again"))
        assert load(split_folder).fingerprint == first.fingerprint
    draw(split_folder / "train" / "cat" / "9.png", 77)
    assert len(load(split_folder).train) == 9


def test_a_folder_without_a_test_split_gives_a_tenth_of_each_class(tmp_path: Path) -> None:
    for label, name in enumerate(("a", "b")):
        for i in range(20):
            draw(tmp_path / "all" / name / f"{i:02}.png", 100 * label + i)
    data = load(tmp_path / "all")
    assert np.bincount(data.train.labels).tolist() == [18, 18]
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    values = np.concatenate([split.images[:, 0, 0, 0] for split in (data.train, data.test)])
    assert sorted(values) == sorted([*range(20), *range(100, 120)])
    assert load(tmp_path / "all").fingerprint == data.fingerprint


def test_validation_serves_as_test(split_folder: Path) -> None:
    (split_folder / "test").rename(split_folder / "val")
    assert len(load(split_folder).test) == 4


def test_a_test_split_may_lack_a_class_and_keeps_the_numbers_of_the_others(split_folder: Path) -> None:
    for path in (split_folder / "test" / "cat").iterdir():
        path.unlink()
    (split_folder / "test" / "cat").rmdir()
    assert load(split_folder).test.labels.tolist() == [1, 1]


def test_a_class_in_the_test_split_alone_is_an_error(split_folder: Path) -> None:
    draw(split_folder / "test" / "horse" / "1.png", 0)
    with pytest.raises(DatasetError, match="Expected every test class in .*train too, got horse only in"):
        load(split_folder)


def test_several_sizes_are_an_error_that_counts_them_and_says_what_to_do(split_folder: Path, own_places: Path) -> None:
    draw(split_folder / "train" / "dog" / "7.png", 0, height=8, width=5)
    with pytest.raises(DatasetError, match=r"got 2: 6x6 \(8 images\), 8x5 \(1 images\); do add \?size=6 to the name"):
        load(split_folder)
    assert leftovers(own_places) == []


def test_a_size_in_the_name_resizes_all(split_folder: Path) -> None:
    draw(split_folder / "train" / "dog" / "7.png", 0, height=8, width=5)
    assert load(split_folder, "?size=4").image_shape == (4, 4, 3)
    assert load(split_folder, "?size=4x3&channels=1").image_shape == (4, 3, 1)


def test_train_and_test_of_different_size_are_an_error(split_folder: Path) -> None:
    for path in (split_folder / "test").rglob("*.png"):
        draw(path, 0, height=3)
    with pytest.raises(DatasetError, match=r"got \(6, 6, 3\) and \(3, 6, 3\)"):
        load(split_folder)


def test_damaged_images_are_all_counted_and_named(split_folder: Path, own_places: Path) -> None:
    damaged = split_folder / "train" / "cat" / "2.png"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with pytest.raises(DatasetError, match=f"in {damaged}; do"):
        load(split_folder)
    for name in ("0.png", "1.png"):
        (split_folder / "train" / "dog" / name).write_text("no image")
    with pytest.raises(DatasetError, match="got 3 that are not; do replace or remove them: .*2.png.*0.png.*1.png"):
        load(split_folder)
    assert leftovers(own_places) == []


@pytest.mark.parametrize(
    ("make", "text"),
    [
        ([], "got no folder"),
        (["root/"], "Expected one sub-folder per class in .*root, got none"),
        (["root/a/", "root/b/"], "Expected images in .*a, got none; do add some or remove"),
    ],
)
def test_a_folder_without_classes_or_images_is_an_error(tmp_path: Path, make: list[str], text: str) -> None:
    for name in make:
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    with pytest.raises(DatasetError, match=text):
        load(tmp_path / "root")


def test_a_relative_path_starts_from_data_dir(split_folder: Path) -> None:
    assert len(load_dataset("folder:pets", split_folder.parent, progress=False).train) == 8


def test_a_class_that_is_called_train_is_a_class(tmp_path: Path) -> None:
    for name in ("bus", "car", "train"):
        for i in range(10):
            draw(tmp_path / "traffic" / name / f"{i}.png", i)
    (tmp_path / "traffic" / "train" / ".thumbnails").mkdir()
    data = load(tmp_path / "traffic")
    assert data.classes == ("bus", "car", "train")
    assert np.bincount(data.train.labels).tolist() == [9, 9, 9]


def test_a_class_that_is_called_train_may_stand_beside_one_that_is_called_test(tmp_path: Path) -> None:
    for name in ("test", "train"):
        for i in range(10):
            draw(tmp_path / "odd" / name / f"{i}.png", i)
    assert load(tmp_path / "odd").classes == ("test", "train")


def test_a_stray_image_beside_the_class_folders_leaves_train_a_split(split_folder: Path) -> None:
    draw(split_folder / "train" / "preview.png", 0)
    data = load(split_folder)
    assert (data.classes, len(data.train), len(data.test)) == (("cat", "dog"), 8, 4)


def test_empty_class_folders_in_train_are_named(tmp_path: Path) -> None:
    (tmp_path / "root" / "train" / "cat").mkdir(parents=True)
    with pytest.raises(DatasetError, match="Expected images in .*train/cat, got none; do add some or remove"):
        load(tmp_path / "root")


@pytest.mark.parametrize("link", ["train/cat/9.png", "train/horse", "train", "test/horse"])
def test_a_link_to_nothing_is_named(split_folder: Path, own_places: Path, link: str) -> None:
    if link == "train":
        (split_folder / "train").rename(split_folder / "moved")
    (split_folder / link).symlink_to(split_folder / "gone")
    with pytest.raises(DatasetError, match=f"Expected to read {split_folder / link}, got a link to nothing; do mend"):
        load(split_folder)
    assert leftovers(own_places) == []


def test_a_link_to_a_class_folder_elsewhere_is_followed(split_folder: Path, tmp_path: Path) -> None:
    draw(tmp_path / "elsewhere" / "1.png", 7)
    (split_folder / "train" / "horse").symlink_to(tmp_path / "elsewhere")
    assert load(split_folder).classes == ("cat", "dog", "horse")


def test_a_folder_that_may_not_be_read_is_named(split_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = Path.iterdir
    locked = split_folder / "train" / "dog"

    def iterdir(path: Path):  # whoever runs this may be allowed everything, so modes will not do
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    with pytest.raises(DatasetError, match=f"Expected to read {locked}, got 'Permission denied'; do mend"):
        load(split_folder)
