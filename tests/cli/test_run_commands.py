"""`train`, `resume`, `evaluate`, `predict`, `report`: in process, on one small run."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from cnnlab import experiment
from cnnlab.cli import main
from cnnlab.evaluation import evaluation_from_predictions
from cnnlab.experiment import Run, Runs
from cnnlab.training import TrainingDiverged


def test_an_interrupted_run_says_how_to_go_on_and_exits_with_130(finished):
    assert finished.train_code == 130
    assert f"cnnlab resume {finished.folder}" in finished.train_text
    assert "accuracy 0." not in finished.train_text and "report:" not in finished.train_text


def test_resume_finishes_the_run_and_says_how_good_it_is(finished):
    assert finished.resume_code == 0
    assert "going on after epoch 1" in finished.resume_text
    accuracy = json.loads((finished.folder / "result.json").read_text())["evaluation"]["accuracy"]
    *_, headline, report = finished.resume_text.splitlines()
    assert headline.startswith(f"accuracy {accuracy:.2%} on 500 test images, best epoch ")
    assert headline.endswith(" of 2, the test images chose it")
    assert report == f"report: {finished.folder / 'report.html'}"


def test_train_passes_recipe_model_and_seed_on(finished):
    record = json.loads((finished.folder / "recipe.json").read_text())
    assert record["recipe"]["epochs"] == 2 and record["recipe"]["noise"] == 0 and record["recipe"]["batch_size"] == 256
    assert record["model"]["name"] == "tiny" and record["model"]["options"]["widths"] == [16]
    assert record["seed"] == 3 and record["dataset"]["request"] == "digits?size=32"


def test_resume_of_a_finished_run_says_so(finished, capsys):
    assert main(["resume", str(finished.folder)]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"nothing to do: {finished.folder} is finished (completed all 2 epochs)"
    assert second == f"report: {finished.folder / 'report.html'}"


def test_train_refuses_a_folder_that_holds_a_run(finished, capsys):
    assert main(["train", "--out", str(finished.folder)]) == 2
    assert capsys.readouterr().err.startswith(f"cnnlab: Expected no run in {finished.folder}, got one with ")


def test_evaluate_prints_the_accuracy_that_training_measured(finished, capsys):
    assert main(["evaluate", str(finished.folder)]) == 0
    accuracy = json.loads((finished.folder / "result.json").read_text())["evaluation"]["accuracy"]
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 13  # titles, ten classes, their mean, accuracy
    assert lines[-1].startswith(f"accuracy {accuracy:.2%}, loss ")


def test_evaluate_as_json_equals_the_result_of_the_run(finished, capsys):
    assert main(["evaluate", str(finished.folder), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert value.pop("run") == str(finished.folder)
    result = json.loads((finished.folder / "result.json").read_text())["evaluation"]
    assert value.pop("loss") == pytest.approx(result.pop("loss"), rel=1e-6)
    assert value == result


def test_predict_names_the_image_and_its_most_probable_classes(finished, capsys):
    assert main(["predict", str(finished.folder), str(finished.image), "--top-k", "2"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{finished.image}: ") and line.count("%") == 2


def test_predict_as_json_tells_classes_and_probabilities(finished, capsys):
    assert main(["predict", str(finished.folder), str(finished.image), str(finished.image), "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first == second
    assert len(first["labels"]) == len(first["probabilities"]) == 3
    assert 0 <= first["probabilities"][2] <= first["probabilities"][0] <= 1


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (["missing.png"], "missing.png"),
        (["damaged.png"], "damaged.png"),
        ([], "Expected at least one image, got none; do name image files."),
    ],
)
def test_predict_names_an_image_that_is_none(finished, capsys, images, text):
    Path("damaged.png").write_bytes(b"no image")
    assert main(["predict", str(finished.folder), *images]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cnnlab: ") and text in line


def test_report_draws_the_page_again(finished, capsys, tmp_path):
    copy = shutil.copytree(finished.folder, tmp_path / "copy")
    (copy / "report.html").unlink()
    assert main(["report", "copy"]) == 0
    assert capsys.readouterr().out == "report: copy/report.html\n"
    assert (copy / "report.html").stat().st_size > 10_000


def test_a_damaged_checkpoint_is_a_failure_not_a_wrong_command(finished, capsys, tmp_path):
    copy = shutil.copytree(finished.folder, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints")
    assert main(["evaluate", "copy"]) == 1
    assert "Expected a best checkpoint in" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["resume", "evaluate", "report", "predict"])
def test_a_folder_without_a_run_is_named_in_one_line(capsys, command):
    assert main([command, "nowhere", *(["a.png"] if command == "predict" else [])]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("cnnlab: Expected a run in ") and "nowhere, got no such folder" in line


@pytest.fixture
def two_seeds(finished, tmp_path) -> Path:
    for seed in (0, 1):
        shutil.copytree(finished.folder, tmp_path / "seeds" / f"seed-{seed}")
    return tmp_path / "seeds"


def test_evaluate_of_several_seeds_tells_each_and_the_mean(two_seeds, capsys):
    assert main(["evaluate", "seeds"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "seed-0:" and lines[14] == "seed-1:"
    assert lines[-1].startswith("accuracy ") and lines[-1].endswith("standard deviation 0.00% over 2 seeds")


def test_resume_of_finished_seeds_says_so(two_seeds, capsys):
    (two_seeds / "summary.json").write_text("{}")
    (two_seeds / "report.html").write_text("")
    assert main(["resume", "seeds"]) == 0
    assert capsys.readouterr().out.startswith("nothing to do: seeds is finished (completed all 2 epochs)\n")


def made_up_run(seed: int, right: int, monitor: str = "test") -> Run:
    labels = np.arange(10) % 2
    evaluation = evaluation_from_predictions(labels, np.where(np.arange(10) < right, labels, 1 - labels), ("a", "b"))
    history = [{"monitor": monitor, "best_epoch": 1, "epoch": 2, "best_accuracy": 0.5}]
    state = SimpleNamespace()
    return Run(state, state, history, evaluation, seed, "completed all 2 epochs", None)  # pyright: ignore


@pytest.fixture
def fit_calls(monkeypatch) -> list[dict]:
    """Train nothing: note the arguments, and return a made-up run or runs."""
    calls: list[dict] = []

    def fit(model, data, recipe, **options):
        calls.append({"model": model, "data": data, "recipe": recipe, **options})
        monitor = "validation" if recipe.held_out else "test"
        if options["seeds"] is None:
            return made_up_run(options["seed"], 9, monitor)
        return Runs(tuple(made_up_run(seed, 8 + seed, monitor) for seed in options["seeds"]), Path(options["out"]))

    monkeypatch.setattr(experiment, "fit", fit)
    return calls


def test_runs_without_out_go_to_the_first_free_folder(fit_calls, capsys):
    for _ in range(3):
        assert main(["train"]) == 0
    assert [str(call["out"]) for call in fit_calls] == [
        "runs/lenet-digits-size-32-thesis",
        "runs/lenet-digits-size-32-thesis-2",
        "runs/lenet-digits-size-32-thesis-3",
    ]
    first, accuracy, report = capsys.readouterr().out.splitlines()[-3:]
    assert first == "run folder: runs/lenet-digits-size-32-thesis-3"
    assert accuracy == "accuracy 90.00% on 10 test images, best epoch 1 of 2, the test images chose it"
    assert report == "report: runs/lenet-digits-size-32-thesis-3/report.html"


def test_seeds_are_counted_from_zero_and_summed_up(fit_calls, capsys):
    assert main(["train", "--seeds", "2", "--out", "five", "--set", "held-out=100", "--quiet"]) == 0
    assert fit_calls[0]["seeds"] == range(2) and fit_calls[0]["progress"] is False
    assert capsys.readouterr().out.splitlines() == [
        "run folder: five",
        "seed  accuracy  best epoch",
        "0     80.00%    1 of 2",
        "1     90.00%    1 of 2",
        "accuracy 85.00%, standard deviation 7.07% over 2 seeds on 10 test images, "
        "held-out training images chose the epochs",
        "report: five/report.html",
    ]


def test_one_seed_of_several_has_no_standard_deviation(fit_calls, capsys):
    assert main(["train", "--seeds", "1"]) == 0
    assert "accuracy 80.00% over 1 seeds on 10 test images" in capsys.readouterr().out


def test_a_table_is_drawn_on_a_terminal(fit_calls, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["train", "--seeds", "2"]) == 0
    assert "│ 0    │ 80.00%" in capsys.readouterr().out


def test_options_reach_fit(fit_calls):
    assert main(["train", "--data-dir", "here", "--overwrite", "--dataset", "folder:some/cats?size=32"]) == 0
    (call,) = fit_calls
    assert call["data_dir"] == Path("here") and call["overwrite"] is True
    assert str(call["out"]) == "runs/lenet-cats-size-32-thesis"


def test_a_run_that_diverged_exits_with_1(monkeypatch, capsys):
    def fit(*_, out, **__):
        (out / "checkpoints").mkdir()
        (out / "recipe.json").write_text("{}")
        raise TrainingDiverged("Expected finite parameters and losses,\n got NaN.")

    monkeypatch.setattr(experiment, "fit", fit)
    assert main(["train"]) == 1
    assert capsys.readouterr().err == "cnnlab: Expected finite parameters and losses, got NaN.\n"
    assert Path("runs/lenet-digits-size-32-thesis/recipe.json").is_file()  # a run that began is kept


def test_a_run_that_never_began_leaves_no_folder(capsys):
    assert main(["train", "--dataset", "no set!"]) == 2
    assert "Expected the name of a data set, got 'no set!'" in capsys.readouterr().err
    assert list(Path("runs").iterdir()) == []


def test_a_quiet_run_that_was_interrupted_says_how_to_go_on(monkeypatch, capsys):
    run = made_up_run(0, 9)
    monkeypatch.setattr(experiment, "fit", lambda *_, **__: Run(run.best, run.last, [], None, 0, None, None))
    assert main(["train", "--out", "mine", "--quiet"]) == 130
    assert capsys.readouterr().out.splitlines()[-1] == "interrupted; go on with:  cnnlab resume mine"
