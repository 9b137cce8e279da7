import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cnnlab.data import DatasetError, list_datasets, load, load_dataset
from cnnlab.data.image_arrays import parse_size


@pytest.mark.parametrize(
    "name", ["folder:x?size=big", "folder:x?size=", "folder:x?size=3x4x5", "folder:x?size=-1", "mnist?size=٣"]
)
def test_a_size_that_is_none_is_an_error(name: str) -> None:
    with pytest.raises(DatasetError, match="Expected size=SIDE or size=HEIGHTxWIDTH in pixels, got size="):
        load_dataset(name)


@pytest.mark.parametrize("name", ["folder:x?width=3", "folder:x?size=3&size=4", "digits?channel=1"])
def test_an_unknown_or_repeated_option_is_an_error(name: str) -> None:
    with pytest.raises(DatasetError, match="Expected .size= and .channels=, each once"):
        load_dataset(name)


@pytest.mark.parametrize("name", ["cifar10?size=16", "cifar10?channels=1", "mnist?channels=3"])
def test_an_option_that_the_set_does_not_take_is_an_error(name: str) -> None:
    with pytest.raises(DatasetError, match="do use them with folder:PATH"):
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
