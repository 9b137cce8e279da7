"""A run folder is made once, written whole, and read back with errors that name the file."""

import json
import math
import os

import jax.numpy as jnp
import numpy as np
import pytest

from cnnlab.training import run_folder
from cnnlab.training.run_folder import RunFolder, RunFolderError


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "lenet")


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_new_run_has_its_folders_and_can_be_opened_once_it_has_a_recipe(run):
    assert names(run.path) == ["checkpoints", "figures"]
    assert (run.checkpoints, run.figures) == (run.path / "checkpoints", run.path / "figures")
    with pytest.raises(RunFolderError, match=r"Expected a run in .*lenet, got no recipe\.json there; do give"):
        RunFolder.open(run.path)
    run.write_json("recipe.json", {})
    assert RunFolder.open(str(run.path)).path == run.path


def test_a_missing_folder_is_no_run(tmp_path):
    with pytest.raises(RunFolderError, match=r"Expected a run in .*nowhere, got no such folder; do give the --out"):
        RunFolder.open(tmp_path / "nowhere")


def test_a_path_may_be_relative_or_start_at_home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert RunFolder("runs").path == tmp_path / "runs"
    assert RunFolder("~/runs").path == tmp_path / "home" / "runs"
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["recipe.json", "metrics.jsonl", "checkpoints/best/save-1/x", "seed-0/recipe.json"])
def test_a_second_run_in_the_same_folder_is_refused(run, name):
    (run.path / name).parent.mkdir(parents=True, exist_ok=True)
    (run.path / name).write_text("{}")
    with pytest.raises(RunFolderError) as caught:
        RunFolder.create(run.path)
    (there,) = {"recipe.json", "metrics.jsonl", "checkpoints"} & set(name.split("/"))
    assert str(caught.value) == (
        f"Expected no run in {run.path}, got one with {there}; do choose another --out, resume it, or overwrite it."
    )
    assert (run.path / name).exists()


def test_an_empty_run_or_a_folder_of_other_things_is_no_run(run):
    (run.path / "notes.txt").write_text("mine")
    RunFolder.create(run.path)
    assert (run.path / "notes.txt").read_text() == "mine"


def test_overwriting_removes_the_run_and_nothing_else(run):
    for name in ("recipe.json", "result.json", "metrics.jsonl", "checkpoints/best/x/y", "figures/a.png"):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("{}")
    for name in ("seed-1/recipe.json", "seed-1/mine", "seed-x/recipe.json", "notes.txt", "other.json"):
        (run.path / name).parent.mkdir(parents=True, exist_ok=True)
        (run.path / name).write_text("mine")
    RunFolder.create(run.path, overwrite=True)
    assert names(run.path) == ["checkpoints", "figures", "notes.txt", "other.json", "seed-1", "seed-x"]
    assert names(run.checkpoints) == names(run.figures) == []
    assert names(run.path / "seed-1") == ["mine"]


def test_overwriting_what_is_no_run_is_refused(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "holiday.png").write_text("mine")
    with pytest.raises(RunFolderError, match=r"Expected a run to overwrite in .*, got figures without recipe\.json"):
        RunFolder.create(tmp_path, overwrite=True)
    assert (tmp_path / "figures" / "holiday.png").exists()


def test_a_file_in_the_way_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RunFolderError, match="Expected to make the run folder .*; do choose another --out"):
            RunFolder.create(path)


def test_json_comes_back_and_is_strict(run):
    value = {
        "rate": 1.0000000000000002e-06,
        "nan": [math.nan, np.float32("inf"), {"deep": -math.inf}],
        "numpy": [np.float64(0.1), np.int64(3), np.bool_(True), np.eye(2), jnp.arange(2)],
        "text": "é",
        "none": None,
        "pair": (1, 2),
    }
    run.write_json("result.json", value)
    text = (run.path / "result.json").read_text()

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert run.read_json("result.json") == json.loads(text, parse_constant=refuse)
    assert run.read_json("result.json") == {
        "rate": 1.0000000000000002e-06,
        "nan": [None, None, {"deep": None}],
        "numpy": [0.1, 3, True, [[1.0, 0.0], [0.0, 1.0]], [0, 1]],
        "text": "é",
        "none": None,
        "pair": [1, 2],
    }
    assert text.startswith('{\n  "rate": 1.0000000000000002e-06,\n') and text.endswith("}\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (
            {"a": [b"x"]},
            r"Expected a value that JSON can hold at result\.json\['a'\]\[0\], got bytes; do convert",
        ),
        ({1: 2}, r"at result\.json, got a dict with keys that are no text"),
    ],
)
def test_what_json_cannot_hold_is_refused_and_the_old_file_stays(run, value, text):
    run.write_json("result.json", 1)
    with pytest.raises(RunFolderError, match=text):
        run.write_json("result.json", value)
    assert run.read_json("result.json") == 1


def test_a_failed_write_leaves_the_old_file_and_no_draft(run, monkeypatch):
    run.write_json("result.json", 1)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder.os, "fsync", full)
    text = r"Expected to write .*result\.json, got '.*No space left on device'; do check"
    with pytest.raises(RunFolderError, match=text):
        run.write_json("result.json", 2)
    assert run.read_json("result.json") == 1
    assert names(run.path) == ["checkpoints", "figures", "result.json"]


@pytest.mark.parametrize("name", ["../x.json", "a/b.json", "/tmp/x.json", "", "..", "."])
def test_a_name_that_leads_elsewhere_is_refused(run, name):
    with pytest.raises(RunFolderError, match="Expected the name of a file in "):
        run.write_json(name, {})


def test_a_missing_file_is_named(run):
    with pytest.raises(RunFolderError, match=r"Expected the file .*recipe\.json, got none; do give the --out"):
        run.read_json("recipe.json")


@pytest.mark.parametrize("data", [b"", b'{"a": 1', b"\xff", b"[" * 100_000])
def test_a_damaged_file_is_named(run, data):
    (run.path / "recipe.json").write_bytes(data)
    with pytest.raises(RunFolderError, match=r"Expected JSON in .*recipe\.json, got '.*'; restore") as caught:
        run.read_json("recipe.json")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_too_large_is_not_read(run, monkeypatch):
    run.write_json("recipe.json", {"a": 1})
    monkeypatch.setattr(run_folder, "_MAX_BYTES", 5)
    with pytest.raises(RunFolderError, match=r"recipe\.json below 5 bytes, got \d+; this is no run file"):
        run.read_json("recipe.json")


def test_metrics_come_back_in_order(run):
    assert run.read_metrics() == []
    run.append_metrics({"epoch": 1, "loss": np.float32(0.5), "accuracy": None})
    assert (run.path / "metrics.jsonl").read_text() == '{"epoch": 1, "loss": 0.5, "accuracy": null}\n'
    run.append_metrics({"epoch": 2, "loss": math.nan})
    assert run.read_metrics() == [{"epoch": 1, "loss": 0.5, "accuracy": None}, {"epoch": 2, "loss": None}]


@pytest.mark.parametrize("torn", [b'{"epoch": 3, "lo', b"\x00\x00\x00", b'{"epoch": 3, "a": "\xc3', b"3"])
def test_a_torn_last_line_is_left_out_and_the_next_record_replaces_it(run, torn):
    run.append_metrics({"epoch": 1})
    run.append_metrics({"epoch": 2})
    with open(run.path / "metrics.jsonl", "ab") as file:
        file.write(torn)
    assert [record["epoch"] for record in run.read_metrics()] == [1, 2]
    run.append_metrics({"epoch": 3})
    assert (run.path / "metrics.jsonl").read_text() == '{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n'


def test_a_last_line_that_lacks_only_its_line_feed_counts(run):
    (run.path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}')
    assert [record["epoch"] for record in run.read_metrics()] == [1, 2]
    run.append_metrics({"epoch": 3})
    assert [record["epoch"] for record in run.read_metrics()] == [1, 2, 3]


@pytest.mark.parametrize("line", ['{"epoch": 2, "lo', "", "3", '{"loss": 1}', '{"epoch": true}'])
def test_a_damaged_line_that_is_not_the_last_is_named(run, line):
    (run.path / "metrics.jsonl").write_text(f'{{"epoch": 1}}\n{line}\n{{"epoch": 3}}\n')
    with pytest.raises(RunFolderError, match=r"Expected .* in .*metrics\.jsonl, line 2, got "):
        run.read_metrics()


def test_a_record_without_its_epoch_is_refused(run):
    with pytest.raises(RunFolderError, match="Expected an object with a whole number 'epoch' in the new record"):
        run.append_metrics({"loss": 1.0})
    assert run.read_metrics() == []


def test_truncating_keeps_the_epochs_that_the_resumed_run_has(run):
    run.truncate_metrics(3)  # no file: nothing to do
    assert not (run.path / "metrics.jsonl").exists()
    for epoch in range(1, 6):
        run.append_metrics({"epoch": epoch, "loss": 1 / epoch})
    before = (run.path / "metrics.jsonl").read_text()
    with open(run.path / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 6')
    run.truncate_metrics(5)
    assert (run.path / "metrics.jsonl").read_text() == before
    run.truncate_metrics(2)
    assert (run.path / "metrics.jsonl").read_text() == "".join(before.splitlines(keepends=True)[:2])
    run.truncate_metrics(0)
    assert run.read_metrics() == []
    assert names(run.path) == ["checkpoints", "figures", "metrics.jsonl"]


def test_best_and_last_are_two_stores_of_the_run(run):
    assert run.best is run.best
    assert os.path.samefile(run.best.folder.parent, run.checkpoints)
    run.best.save(1, {"a": np.ones(2)}, {"accuracy": 0.5})
    run.last.save(2, {"a": np.zeros(2)}, {})
    assert run.best.meta() == (1, {"accuracy": 0.5})
    assert run.last.load({"a": np.empty(2)})[0] == 2
    run.best.close()
    run.last.close()
    assert names(run.checkpoints) == ["best", "last"]
