"""A part of a data set goes by its name everywhere: into the run folder, its own name, and back when it goes on."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnlab
from cnnlab.experiment import claim_folder
from cnnlab.experiment.requests import absolute_request
from cnnlab.training import Callback, Recipe, RunFolderError

NAME = "folder:photos?channels=1&train=21&test=6"
RECIPE = Recipe(name="short", epochs=2, batch_size=8, learning_rate=0.05, target_accuracy=2.0)


class StopAfterOneEpoch(Callback):
    """Presses Ctrl-C."""

    def on_epoch(self, record: dict) -> None:
        if record["epoch"] == 1:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`photos` in the working directory: 40 and 20 training images, 8 and 4 to test with, of 4x4 pixels."""
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for which, kind, count in (("train", "cat", 40), ("train", "dog", 20), ("test", "cat", 8), ("test", "dog", 4)):
        folder = tmp_path / "photos" / which / kind
        folder.mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (4, 4), dtype=np.uint8)).save(folder / f"{i:02}.png")
    return tmp_path / "photos"


def test_a_run_on_a_part_goes_on_from_another_directory_with_the_same_images(photos, tmp_path, monkeypatch):
    options = {"hidden": [4]}
    out = tmp_path / "run"
    run = cnnlab.fit(
        "mlp", NAME, RECIPE, model_options=options, out=out, callbacks=[StopAfterOneEpoch()], progress=False
    )
    assert run.interrupted
    record = json.loads((out / "recipe.json").read_text())["dataset"]
    assert record["request"] == f"folder:{photos}?channels=1&train=21&test=6"
    assert (record["name"], record["train_images"], record["test_images"]) == (NAME, 21, 6)
    assert record["source"] == f"image folder {photos}, 21 of 60 train and 6 of 12 test images"

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    resumed = cnnlab.resume(out, progress=False)
    assert resumed.stop_reason == "completed all 2 epochs" and resumed.evaluation.images == 6

    whole = {**record, "request": f"folder:{photos}?channels=1"}
    (out / "recipe.json").write_text(json.dumps({**json.loads((out / "recipe.json").read_text()), "dataset": whole}))
    with pytest.raises(RunFolderError, match="Expected the data .* was trained on, got other images or labels"):
        cnnlab.resume(out, progress=False)


def test_a_part_of_a_folder_is_asked_for_by_its_whole_path_and_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_request(NAME, None) == f"folder:{tmp_path}/photos?channels=1&train=21&test=6"
    assert absolute_request("cifar10?train=5000&test=1000", "there") == "cifar10?train=5000&test=1000"


def test_the_folder_of_a_run_is_named_after_the_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, expected in (
        ("cifar10?train=5000&test=1000", "lenet-cifar10-train-5000-test-1000-thesis"),
        (NAME, "lenet-photos-channels-1-train-21-test-6-thesis"),
    ):
        assert claim_folder("lenet", name, "thesis") == Path("runs", expected)
