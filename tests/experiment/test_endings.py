"""How runs end that do not end well, and what can be done with their folders then and elsewhere."""

import json
import math
import re
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from PIL import Image

import cnnlab
from cnnlab.experiment import refresh_report
from cnnlab.experiment.plan import Plan
from cnnlab.experiment.requests import absolute_request
from cnnlab.models.registry import REGISTRY, register_model
from cnnlab.training import Callback, CheckpointError, Recipe, RunFolder, RunFolderError, Trainer, TrainingDiverged

RECIPE = Recipe(name="short", epochs=2, batch_size=16, learning_rate=0.05, target_accuracy=2.0)
ADVICE = "; do lower learning_rate (0.05)"


class Tiny(nnx.Module):
    """One dense layer: compiles in a moment."""

    def __init__(self, num_classes, in_channels, image_size, rngs):
        self.head = nnx.Linear(image_size * image_size * in_channels, num_classes, rngs=rngs)

    def __call__(self, images):
        return self.head(images.reshape(images.shape[0], -1))


@pytest.fixture(scope="module", autouse=True)
def _own_places(tmp_path_factory):
    with REGISTRY.temporarily(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("CNNLAB_CACHE", str(tmp_path_factory.mktemp("cache")))

        @register_model
        def tiny(num_classes: int = 10, *, in_channels: int = 3, image_size: int = 32, rngs: nnx.Rngs):
            return Tiny(num_classes, in_channels, image_size, rngs)

        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A folder of two classes of images, 4x4 pixels."""
    root = tmp_path_factory.mktemp("data") / "photos"
    rng = np.random.default_rng(0)
    for i in range(40):
        place = root / ("dark", "light")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 128, (4, 4)) + 127 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
    return root


@pytest.fixture
def fit(photos, tmp_path):
    """A function that trains on the photos into tmp_path/run."""

    def fit(**options):
        options = {"out": tmp_path / "run", "progress": False, **options}
        return cnnlab.fit("tiny", f"folder:{photos}?channels=1", options.pop("recipe", RECIPE), **options)

    return fit


@pytest.fixture(scope="module")
def finished(photos, tmp_path_factory):
    """A run that was asked for by a relative path, from the folder the photos lie in."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(photos.parent)
        cnnlab.fit("tiny", "folder:photos?channels=1", RECIPE, out=out, progress=False)
    return out


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "copy")


def changed(folder: Path, name: str, **parts) -> None:
    """Change values in a JSON file; `dataset={"request": ...}` changes one of a table."""
    content = json.loads((folder / name).read_text())
    for key, value in parts.items():
        content[key] = {**content[key], **value} if isinstance(content.get(key), dict) else value
    (folder / name).write_text(json.dumps(content))


def diverging(monkeypatch, when) -> None:
    """Let the monitored loss be NaN once `when(state, epoch)` is true."""
    evaluate, calls = Trainer._evaluate, {}

    def evaluate_or_not(self, state):
        seed = int(state.seed)
        calls[seed] = calls.get(seed, -1) + 1  # the first only compiles
        return (math.nan, 0.1) if when(seed, calls[seed]) else evaluate(self, state)

    monkeypatch.setattr(Trainer, "_evaluate", evaluate_or_not)


def test_a_run_that_diverges_at_once_is_ended_in_every_respect(fit, tmp_path, monkeypatch):
    diverging(monkeypatch, lambda seed, epoch: epoch == 1)
    with pytest.raises(TrainingDiverged, match="in epoch 1 .*no earlier epoch is kept"):
        fit()
    run = tmp_path / "run"
    result = json.loads((run / "result.json").read_text())
    assert result["stop_reason"].startswith("diverged in epoch 1 (training loss 0.")
    assert result["stop_reason"].endswith(ADVICE)
    assert [result[key] for key in ("epochs", "best_epoch", "best_accuracy", "evaluation")] == [1, None, None, None]
    (record,) = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert (record["event"], record["loss"], record["accuracy"]) == ("diverged", None, None)
    assert "diverged in epoch 1; no epoch before that is kept" in (run / "report.html").read_text()
    with pytest.raises(TrainingDiverged, match=r"^Expected a run that can go on in .*run, got one that diverged in ep"):
        cnnlab.resume(run, progress=False)
    with pytest.raises(CheckpointError, match=r"best, got none, for the run diverged in epoch 1 .*0\.05\)\.$"):
        cnnlab.load(run)
    assert refresh_report(run) == (run / "report.html", None)


def test_a_run_that_diverges_later_gives_its_best_network(fit, tmp_path, monkeypatch):
    diverging(monkeypatch, lambda seed, epoch: epoch == 2)
    with pytest.raises(TrainingDiverged, match="in epoch 2 .*; epoch 1 .* is kept in .*checkpoints; do lower"):
        fit()
    run = tmp_path / "run"
    page = (run / "report.html").read_text()
    assert "diverged in epoch 2; best before that at epoch 1" in page and "cnnlab resume" not in page
    assert cnnlab.load(run).classes == ("dark", "light")
    assert json.loads((run / "result.json").read_text())["best_epoch"] == 1
    assert refresh_report(run) == (run / "report.html", None)


def test_a_seed_that_diverges_ends_and_the_others_go_on(fit, tmp_path, monkeypatch):
    diverging(monkeypatch, lambda seed, epoch: seed == 4 and epoch == 1)
    with pytest.raises(
        TrainingDiverged, match="infinity: seed 4 in epoch 1; 1 of 2 seeds have finished and are kept in"
    ):
        fit(seeds=[4, 5], recipe=RECIPE.replace(epochs=1))
    page = (tmp_path / "run" / "report.html").read_text()
    assert "diverged in epoch 1 (training loss" in page.replace("Diverged", "diverged")
    runs = cnnlab.resume(tmp_path / "run", progress=False)
    assert [run.seed for run in runs] == [5] and runs.summary["accuracy"]["n"] == 1
    assert "1\u00a0seed of 2 diverged" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"seed": -1}, "Expected a whole number from 0 to 4294967295 for a seed, got -1; do choose another"),
        ({"seed": 2**32}, "for a seed, got 4294967296"),
        ({"seed": 1.5}, "for a seed, got 1.5"),
        ({"seeds": [0, 1.5]}, "for a seed, got 1.5"),
        ({"seeds": [0, -2]}, "for a seed, got -2"),
        ({"seeds": [3, 1, 3]}, "Expected every seed once, got 3 more than once; do name it once"),
        ({"seeds": 5}, r"Expected several seeds, got 5; do pass e.g. seeds=range\(5\), or seed="),
        ({"seeds": []}, "Expected at least one seed, got none"),
    ],
)
def test_what_is_no_seed_is_one_line_before_a_folder_is_made(fit, tmp_path, arguments, text):
    with pytest.raises(ValueError, match=text):
        fit(**arguments)
    assert not (tmp_path / "run").exists()


def test_a_run_under_way_is_neither_trained_nor_resumed_by_another(fit, copy, tmp_path):
    (tmp_path / "run").mkdir()
    with RunFolder(tmp_path / "run").lock, pytest.raises(RunFolderError, match="Expected no other process training in"):
        fit()
    assert not (tmp_path / "run" / "recipe.json").exists()
    with RunFolder(copy).lock, pytest.raises(RunFolderError, match="got one; do wait for it to end"):
        cnnlab.resume(copy, progress=False)


@pytest.mark.parametrize(
    ("request_", "data_dir", "stored"),
    [
        ("folder:cats?size=8&channels=1", None, "folder:{cwd}/cats?size=8&channels=1"),
        ("folder:cats", "there", "folder:{cwd}/there/cats"),
        ("folder:/data/cats?size=8", "there", "folder:/data/cats?size=8"),
        ("digits?size=8", "there", "digits?size=8"),
        (None, None, None),
    ],
)
def test_a_folder_of_images_is_asked_for_by_its_whole_path(tmp_path, monkeypatch, request_, data_dir, stored):
    monkeypatch.chdir(tmp_path)
    assert absolute_request(request_, data_dir) == (stored and stored.format(cwd=tmp_path))


def test_a_relative_folder_is_found_from_another_directory(finished, photos, copy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = json.loads((finished / "recipe.json").read_text())["dataset"]
    assert record["request"] == f"folder:{photos}?channels=1"
    fingerprint = Plan.read(RunFolder.open(finished), None, progress=False)[0].dataset.fingerprint
    assert fingerprint == record["fingerprint"]
    moved = shutil.copytree(photos, tmp_path / "elsewhere" / "photos")
    changed(copy, "recipe.json", dataset={"request": "folder:/no/such/place/photos?channels=1"})
    for place in (moved, "elsewhere"):  # the folder itself, or the one it lies in
        assert Plan.read(RunFolder.open(copy), place, progress=False)[0].dataset.fingerprint == fingerprint
        assert refresh_report(copy, place) == (copy / "report.html", None)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"dataset": {"request": "folder:/no/such/place"}}, "the mistakes are left out: Expected a folder of images,"),
        ({"dataset": {"fingerprint": "0" * 64}}, "the mistakes are left out: Expected the data .* was trained on, got"),
        ({"dataset": {"request": None}}, "the mistakes are left out: only the script knows the data"),
        ({"model": {"options": None}}, "the filters and mistakes are left out: Expected the name of a model, got"),
        ({"model": {"name": "unknown"}}, "the filters and mistakes are left out: Expected .*unknown"),
    ],
)
def test_a_report_is_drawn_with_what_is_at_hand_and_says_what_is_missing(copy, change, text):
    changed(copy, "recipe.json", **change)
    (copy / "report.html").unlink()
    page, missing = refresh_report(copy)
    assert page.read_text().startswith("<!doctype html>")
    assert missing is not None and "\n" not in missing
    assert re.match(text, missing), missing


class StopInEpoch(Callback):
    """Press Ctrl-C when so many epochs have ended."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch(self, record):
        if record["epoch"] == self.epoch:
            signal.raise_signal(signal.SIGINT)


def test_every_session_is_noted_and_another_version_is_said_once(fit, tmp_path, capsys):
    assert fit(callbacks=[StopInEpoch(1)], recipe=RECIPE.replace(epochs=3)).interrupted
    run = tmp_path / "run"
    assert cnnlab.resume(run, callbacks=[StopInEpoch(2)]).interrupted
    assert "bit for bit" not in capsys.readouterr().out
    changed(run, "environment.json", jax="0.0.1", variables={"XLA_FLAGS": "--xla_old"})
    assert not cnnlab.resume(run).interrupted
    environment = json.loads((run / "environment.json").read_text())
    line = (
        f"not bit for bit from here on: jax 0.0.1 is now {environment['resumed'][1]['jax']}, XLA_FLAGS --xla_old is now"
    )
    assert capsys.readouterr().out.count(line) == 1
    assert [set(session) for session in environment["resumed"]] == [set(environment) - {"resumed"}] * 2
    cnnlab.resume(run, progress=False)  # finished: nothing is trained, nothing is noted
    assert len(json.loads((run / "environment.json").read_text())["resumed"]) == 2
