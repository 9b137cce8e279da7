"""Rows become runs and files; what is there is not trained again, and what is of something else is refused."""

import json
import shutil
from dataclasses import replace
from importlib import import_module

import pytest

from cnnlab.cli import main
from cnnlab.data import DatasetError
from cnnlab.reproduction import Results, get_study, list_studies, reproduce
from cnnlab.reproduction.gather import rows_of
from cnnlab.reproduction.runner import train_row
from cnnlab.training import RunFolderError
from tests.reproduction.small_study import RECIPE, Small

MODULE = import_module("cnnlab.reproduction.reproduce")


def change(file, *keys, to) -> None:
    """Change a value in a JSON file."""
    value = inner = json.loads(file.read_text())
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    file.write_text(json.dumps(value))


def test_a_study_trains_its_rows_and_writes_what_it_found(small, small_runs) -> None:
    assert {path.name for path in small_runs.iterdir()} == {
        "narrow",
        "wide",  # asked for when the first has run
        "results.json",
        "results.csv",
        "dots.png",
        "curves.png",
    }
    results, folder = reproduce("small", small_runs, quick=True, progress=False)
    assert folder == small_runs and results.complete() and results.measured == {"runs": 2}
    run = results.rows["wide"].runs[0]
    assert (run["epochs"], len(run["history"]["accuracy"]), run["diverged"]) == (2, 2, False)
    assert run["last_accuracy"] == pytest.approx(run["history"]["accuracy"][-1], rel=1e-5)
    assert run["history"]["learning_rate"] == pytest.approx([0.05, 0.005])
    assert run["found"] == {"hidden": [40]}
    assert results.rows["wide"].options == {"hidden": [40], "num_classes": 10, "in_channels": 1, "image_size": 8}
    assert results.rows["wide"].images["shape"] == [8, 8, 1] and results.rows["wide"].images["classes"] == 10


def test_what_is_there_is_neither_trained_nor_written_again(trained, small_runs, tmp_path, capsys, monkeypatch) -> None:
    shutil.copytree(small_runs, tmp_path / "runs")
    first, _ = reproduce("small", tmp_path / "runs", quick=True)
    writes = []
    monkeypatch.setattr(MODULE, "write_found", lambda *args: writes.append(args))
    again, _ = reproduce("small", tmp_path / "runs", quick=True)
    assert again == first and trained == [] and len(writes) == 1 and capsys.readouterr().out == ""


def test_it_goes_on_with_what_is_missing(trained, tmp_path, capsys) -> None:
    results, _ = reproduce("small", tmp_path, rows=["narrow"])
    assert trained == ["narrow 0", "narrow 1"] and results.complete("narrow") and not results.complete("wide")
    assert "narrow: four neurons (seeds 0, 1; then 0 more runs)" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "narrow" / "seed-1")
    (tmp_path / "results.json").unlink()
    results, _ = reproduce("small", tmp_path, progress=False)
    assert trained[2:] == ["narrow 1", "wide 0", "wide 1"] and results.complete()


def test_fewer_seeds_are_planned_and_more_are_added_later(trained, tmp_path) -> None:
    results, _ = reproduce("small", tmp_path, seeds=1, progress=False)
    assert trained == ["narrow 0", "wide 0"] and results.complete()
    results, _ = reproduce("small", tmp_path, progress=False)
    assert trained[2:] == ["narrow 1", "wide 1"] and results.rows["wide"].planned_seeds == 2
    fewer, _ = reproduce("small", tmp_path, seeds=1, progress=False)
    assert len(fewer.rows["wide"].runs) == 2 and fewer.complete(), "what is there of other seeds stays"


def test_seeds_asked_for_are_known_when_all_is_gathered_again(trained, tmp_path) -> None:
    typed = {"quick": False, "seeds": 1, "progress": False}
    first, _ = reproduce("small", tmp_path, **typed)
    again, _ = reproduce("small", tmp_path, **typed)
    assert trained == ["narrow 0", "wide 0"] and again == first and first.asked_seeds == 1
    assert {first.judged_seeds(row) for row in first.rows.values()} == {2}
    assert {replace(first, epochs=1).judged_seeds(row) for row in first.rows.values()} == {1}
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["command"] == "cnnlab reproduce small --seeds 1"
    assert {(row["planned_seeds"], row["asked_seeds"]) for row in written["rows"]} == {(2, 1)}
    whole, _ = reproduce("small", tmp_path, progress=False)
    assert trained[2:] == ["narrow 1", "wide 1"] and whole.asked_seeds is None


def test_no_more_seeds_are_trained_than_typed_and_as_many_are_wanted_as_before(trained, tmp_path) -> None:
    reproduce("small", tmp_path, seeds=1, progress=False)
    value = json.loads((tmp_path / "results.json").read_text())
    change(tmp_path / "results.json", "rows", to=[{**row, "asked_seeds": 2} for row in value["rows"]])
    results, _ = reproduce("small", tmp_path, seeds=1, progress=False)
    assert trained == ["narrow 0", "wide 0"] and not results.complete("narrow")


def test_a_run_whose_folder_is_gone_stays_with_what_was_found_of_it(trained, small, tmp_path, monkeypatch) -> None:
    first, _ = reproduce("small", tmp_path, quick=True, progress=False)
    shutil.rmtree(tmp_path / "narrow")
    monkeypatch.setattr(Small, "inspect", lambda self, folder: pytest.fail("asked once for each run"))
    again, _ = reproduce("small", tmp_path, quick=True, progress=False)
    assert len(trained) == 2 and again == first and first.rows["narrow"].runs[0]["found"] == {"hidden": [4]}
    monkeypatch.undo()


def test_what_cannot_be_inspected_is_a_line_and_asked_again(trained, tmp_path, capsys, monkeypatch) -> None:
    def inspect(self, folder):
        raise DatasetError("Expected the data, got\nnone; do give --data-dir.")

    with monkeypatch.context() as patch:
        patch.setattr(Small, "inspect", inspect)
        results, _ = reproduce("small", tmp_path, quick=True, rows=["narrow"], progress=False)
    assert "found" not in results.rows["narrow"].runs[0]
    lines = capsys.readouterr().err.splitlines()
    text = f"{tmp_path}/narrow/seed-0 is not inspected: Expected the data, got none; do give --data-dir."
    assert lines and set(lines) == {text}
    results, _ = reproduce("small", tmp_path, quick=True, rows=["narrow"], progress=False)
    assert results.rows["narrow"].runs[0]["found"] == {"hidden": [4]}


def test_a_torn_file_of_results_is_made_anew_from_the_folders(trained, small_runs, tmp_path, capsys) -> None:
    shutil.copytree(small_runs, tmp_path / "runs")
    file = tmp_path / "runs" / "results.json"
    whole = file.read_text()
    file.write_text(whole[: len(whole) // 2])
    results, _ = reproduce("small", tmp_path / "runs", quick=True, progress=False)
    assert results.complete() and trained == [] and file.read_text() == whole
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"written anew from the run folders: Expected the results of a study in {file}, got 'JSON")


@pytest.mark.parametrize(
    ("keys", "value", "what"),
    [
        (("recipe", "epochs"), 3, "recipe"),
        (("model", "options", "hidden"), [5], "options"),
        (("model", "options", "dropout"), 0.5, "options"),  # which the row does not name
        (("model", "name"), "lenet", "network and options"),
        (("dataset", "request"), "cifar10", "data set"),
    ],
    ids=["recipe", "option", "further-option", "network", "data"],
)
def test_a_run_of_something_else_is_refused(trained, small_runs, tmp_path, keys, value, what) -> None:
    shutil.copytree(small_runs / "narrow", tmp_path / "narrow")
    change(tmp_path / "narrow" / "seed-0" / "recipe.json", *keys, to=value)
    with pytest.raises(RunFolderError, match=rf"run of the row narrow in .*seed-0, got one with another {what}; do"):
        reproduce("small", tmp_path, quick=True, progress=False)


def test_other_images_under_the_same_name_are_refused(small, small_runs, tmp_path) -> None:
    (row,) = rows_of(small, Results("small"))
    shutil.copytree(small_runs / "narrow", tmp_path / "narrow")
    change(tmp_path / "narrow" / "seed-0" / "recipe.json", "dataset", "fingerprint", to="0" * 64)
    with pytest.raises(RunFolderError, match="got one with another images; do choose"):
        train_row(row, [1], tmp_path, progress=False)


def test_results_of_another_version_are_refused(small, small_runs) -> None:
    with pytest.raises(RunFolderError, match="Expected results of small-1-epochs in .*, got small-quick; do choose"):
        reproduce("small", small_runs, epochs=1, progress=False)


def test_a_run_that_diverges_is_a_result(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tests.reproduction.small_study.RECIPE", RECIPE.replace(learning_rate=1e6, weight_decay=1e6))
    monkeypatch.setattr(Small, "inspect", lambda self, folder: pytest.fail("there may be no network"))
    results, _ = reproduce("small", tmp_path, quick=True, rows=["narrow"], progress=False)
    (run,) = results.rows["narrow"].runs
    assert run["diverged"] and run["test_accuracy"] is None and run["stop_reason"].startswith("diverged")
    assert json.loads((tmp_path / "results.json").read_text())["rows"][0]["test_accuracy"]["n"] == 0


def test_an_interruption_says_how_to_go_on_with_all_that_was_typed(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(MODULE, "train_row", lambda *args, **options: False)
    typed = {"quick": True, "rows": ["narrow"], "seeds": 1, "data_dir": "my data", "docs": tmp_path}
    monkeypatch.setattr(MODULE, "load_dataset", lambda *args, **options: None)
    (tmp_path / "reproduction.md").touch()
    with pytest.raises(KeyboardInterrupt) as stop:
        reproduce("small", tmp_path / "a place", **typed, progress=False)
    assert str(stop.value) == (
        "interrupted; go on with:  cnnlab reproduce small --quick --rows narrow --seeds 1 "
        f"--out '{tmp_path}/a place' --docs {tmp_path} --data-dir 'my data' --quiet"
    )


def test_an_interruption_outside_training_says_the_same(small, tmp_path, monkeypatch, capsys) -> None:
    def interrupt(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MODULE, "load_dataset", interrupt)
    monkeypatch.setattr("cnnlab.reproduction.get_study", lambda name: small)
    assert main(["reproduce", "small", "--epochs", "1", "--workers", "2"]) == 130
    assert capsys.readouterr().err == (
        "cnnlab: interrupted; go on with:  cnnlab reproduce small --epochs 1 --workers 2\n"
    )


def test_bad_input_is_one_line_before_anything_trains(small, tmp_path, monkeypatch) -> None:
    def refused(text, name="small", **options):
        with pytest.raises(ValueError, match=text):
            reproduce(name, tmp_path / "runs", progress=False, **options)

    refused("Expected a row of small, got 'broad'; the rows are narrow", rows=["broad"])
    refused("Expected workers of at least 1, got 0; do raise it", workers=0)
    refused("Expected quick or epochs, got both; do leave one of them out", quick=True, epochs=1)
    refused("Expected epochs below the 2 of small, got 2, which shortens nothing; do leave it out", epochs=2)
    with monkeypatch.context() as patch:
        patch.setattr(MODULE, "get_study", get_study)
        text = "Expected no epochs for figure10, which trains nothing, got 3; do leave them out"
        refused(text, name="figure10", epochs=3)
    with pytest.raises(ValueError, match="Expected the name of a reproduction, got 'figure88'; did you mean figure8?"):
        get_study("figure88")
    assert not (tmp_path / "runs").exists()


def test_a_row_that_is_shorter_already_is_not_lengthened() -> None:
    (row,) = Small().rows(Results("small"))
    assert row.in_epochs(60) is row and row.in_epochs(1).recipe == replace(RECIPE, epochs=1, milestones=(0.5,))


def test_the_command_line_lists_and_runs(trained, small, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("cnnlab.reproduction.list_studies", lambda: [small])
    monkeypatch.setattr("cnnlab.reproduction.get_study", lambda name: small)
    assert main(["reproduce"]) == 0
    assert "small  the wide one is better  about 0.1 min" in capsys.readouterr().out
    assert main(["reproduce", "small", "--quick", "--quiet", "--rows", "narrow", "--out", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("\nTwo small networks\n")
    assert "NOT RUN  wide is better\n  rule, made after the fact: a higher mean\n" in out
    assert main(["reproduce", "small", "--seeds", "0"]) == 2
    assert capsys.readouterr().err == "cnnlab: Expected seeds of at least 1, got 0; do raise it.\n"


def test_every_study_says_what_it_is() -> None:
    studies = list_studies()
    assert len({study.name for study in studies}) == len(studies) == 8
    for study in studies:
        assert get_study(study.name).name == study.name
        assert all((study.title, study.claim, study.source, study.shortened, study.full_time)) and study.figures
        assert 0 < study.quick_minutes <= 15
        assert [verdict.outcome for verdict in study.verdicts(Results(study.name))]
