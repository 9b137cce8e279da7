"""Results as values and as files."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from cnnlab.data import Dataset, dataset_from_arrays
from cnnlab.reproduction import Results, Row, RowResults, Verdict
from cnnlab.reproduction.cells import duration, millions, percent, spread
from cnnlab.reproduction.files import as_csv, as_json, command, read_results
from cnnlab.reproduction.gather import collect
from cnnlab.training import Recipe
from tests.reproduction.small_study import made_up_row


def some_results() -> Results:
    rows = [made_up_row("narrow", [0.5, 0.7, None]), made_up_row("wide", [0.9]), RowResults("later", "not begun")]
    return Results("small", rows={row.row: row for row in rows}, measured={"grid": ["0011"], "slope": math.nan})


def test_a_row_gives_mean_and_standard_deviation_of_the_runs_that_have_a_value() -> None:
    narrow, wide, later = some_results().rows.values()
    np.testing.assert_allclose([narrow.mean("test_accuracy"), narrow.sd("test_accuracy")], [0.6, np.sqrt(0.02)])
    assert (wide.mean("test_accuracy"), wide.sd("test_accuracy")) == (0.9, None)
    assert math.isnan(later.mean("test_accuracy")) and later.values("test_accuracy") == []
    assert narrow.complete and not later.complete
    assert wide.curves("train_accuracy") == [[0.5, 0.9]]


def test_a_study_is_complete_when_every_row_asked_for_has_all_its_runs() -> None:
    results = some_results()
    assert results.complete("narrow", "wide") and not results.complete() and not results.complete("nobody")
    assert [row.row for row in results.finished()] == ["narrow", "wide"]
    assert [row.row for row in results.finished("later", "wide")] == ["wide"]
    assert not results.empty and Results("small").empty and not Results("small", measured={"costs": 1}).empty
    assert Results("small", rows={"later": results.rows["later"]}, measured={"costs": 1}).empty
    gap = made_up_row("gap", [0.5, 0.7, 0.6], 2)
    del gap.runs[1]
    assert len(gap.runs) == gap.planned_seeds and not gap.complete, "seed 2 does not stand for seed 1"


def test_what_is_written_is_read_back_as_strict_json_with_a_curve_on_a_line(small, tmp_path) -> None:
    results = some_results()
    text = as_json(results, small)
    value = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert '"train_accuracy": [0.5, 0.9]' in text and '"loss": [1.0, null]' in text
    assert value["command"] == "cnnlab reproduce small"
    assert [verdict["outcome"] for verdict in value["verdicts"]] == ["holds"]
    assert value["rows"][0]["test_accuracy"] == {"n": 2, "mean": 0.6, "sd": pytest.approx(0.02**0.5)}
    assert value["rows"][0]["revisions"] == ["a" * 40]
    (tmp_path / "results.json").write_text(text)
    back = read_results(tmp_path / "results.json")
    assert back is not None and back.rows == results.rows
    assert back.measured == {"grid": ["0011"], "slope": None}, "there is no NaN in JSON"
    assert read_results(tmp_path / "nowhere.json") is None


def test_the_csv_file_has_a_line_per_run_without_curves(small) -> None:
    results = some_results()
    results.rows["wide"].runs[0]["found"] = {"regions": ["0011"]}
    lines = list(csv.DictReader(as_csv(results, small).splitlines()))
    assert [(line["row"], line["seed"], line["test_accuracy"]) for line in lines] == [
        ("narrow", "0", "0.5"),
        ("narrow", "1", "0.7"),
        ("narrow", "2", ""),
        ("wide", "0", "0.9"),
    ]
    assert not {"history", "environment", "found"} & set(lines[0])
    assert as_csv(Results("small"), small) == "row,accuracy\r\n", "nothing trained: the table"


def test_versions_have_names_and_commands_of_their_own(tmp_path) -> None:
    versions = [Results("small"), Results("small", quick=True), Results("small", epochs=12)]
    assert [results.name for results in versions] == ["small", "small-quick", "small-12-epochs"]
    assert [command(results).removeprefix("cnnlab reproduce ") for results in versions] == [
        "small",
        "small --quick",
        "small --epochs 12",
    ]
    typed = {"rows": ("a", "b"), "seeds": 1, "workers": None, "data_dir": "my data", "docs": tmp_path, "quiet": False}
    expected = f" small --rows a b --seeds 1 --data-dir 'my data' --docs {tmp_path}"
    assert command(versions[0], **typed).endswith(expected)


def test_a_published_run_stays_only_as_long_as_its_row_means_the_same(tmp_path) -> None:
    recipe = Recipe(epochs=2)
    row = Row("narrow", "", "mlp", recipe, 2, {"hidden": (4,)}, "digits")
    folders = {"narrow": [tmp_path / "seed-0", tmp_path / "seed-1"]}
    told = {"model": "mlp", "options": {"hidden": [4]}, "recipe": recipe.to_dict(), "data": "digits"}
    old = made_up_row("narrow", [0.5])
    known = Results("small", rows={"narrow": RowResults("narrow", "", **told, planned_seeds=1, runs=old.runs)})
    assert [run["test_accuracy"] for run in collect([row], folders, known).rows["narrow"].runs] == [0.5]
    renamed = Row("narrow", "", "mlp", recipe.replace(name="other", result="81 %"), 2, row.options, row.data)
    assert len(collect([renamed], folders, known).rows["narrow"].runs) == 1, "what is told of a recipe trains nothing"
    others = [
        Row("narrow", "", "mlp", recipe.replace(epochs=3), 2, row.options, row.data),
        Row("narrow", "", "lenet", recipe, 2, row.options, row.data),
        Row("narrow", "", "mlp", recipe, 2, {"hidden": (5,)}, row.data),
        Row("narrow", "", "mlp", recipe, 2, row.options, "cifar10"),
    ]
    for other in others:
        assert collect([other], folders, known).rows["narrow"].runs == []
    images = {"fingerprint": "0" * 64, "shape": [8, 8, 1], "classes": 10}
    whole = {**told, "options": {"hidden": [4], "num_classes": 10, "in_channels": 1, "image_size": 8}, "images": images}
    for options, runs in (({}, 1), ({"dropout": 0.5}, 0)):
        before = RowResults("narrow", "", **{**whole, "options": {**whole["options"], **options}}, runs=old.runs)
        found = collect([row], folders, Results("small", rows={"narrow": before})).rows["narrow"]
        assert len(found.runs) == runs, "also what the row does not name has to be what it is now"
        assert found.images == (images if runs else {})


def test_runs_on_data_that_the_study_makes_stay_as_long_as_it_makes_the_same() -> None:
    def images_of(seed: int) -> Dataset:
        pixels = np.random.default_rng(seed).integers(0, 256, (20, 4, 4, 1), np.uint8)
        labels = np.arange(20) % 2
        return dataset_from_arrays(pixels, labels, pixels, labels, classes=["a", "b"])

    row = Row("narrow", "", "mlp", Recipe(epochs=2), 1, {"hidden": (4,)}, lambda: images_of(0))
    told = replace(RowResults.planned(row), runs=made_up_row("narrow", [0.5]).runs)
    for seed, runs in ((0, 1), (1, 0)):
        images = {"fingerprint": images_of(seed).fingerprint, "shape": [4, 4, 1], "classes": 2}
        options = {"hidden": [4], "num_classes": 2, "in_channels": 1, "image_size": 4}
        known = Results("small", rows={"narrow": replace(told, images=images, options=options)})
        assert len(collect([row], {"narrow": []}, known).rows["narrow"].runs) == runs


def test_a_schedule_is_shortened_in_its_shape() -> None:
    recipe = Recipe(epochs=164, schedule="step", milestones=[82, 123], warmup_epochs=1.0, learning_rate=0.1)
    short = Row("row", "", "resnet20", recipe).in_epochs(12).recipe
    assert (short.epochs, short.milestones, short.learning_rate) == (12, (6.0, 9.0), 0.1)
    np.testing.assert_allclose(short.warmup_epochs, 12 / 164)


def test_a_verdict_says_what_the_measurement_means() -> None:
    outcomes = [Verdict.of("claim", "rule", "found", held).outcome for held in (True, False, None)]
    assert [*outcomes, Verdict("claim", "rule").outcome] == ["holds", "does not hold", "undecided", "not run"]
    later = Verdict.of("claim", "a rule", "found", True, afterwards=True)
    assert later.judged_by == "Rule, made after the fact: a rule" and Verdict("", "a rule").judged_by == "Rule: a rule"


def test_numbers_are_written_with_their_spread() -> None:
    assert percent([0.5, 0.7]) == "60.00 ± 14.14 % (2)"
    assert (percent([0.5]), percent([]), spread([], 1)) == ("50.00 % (1)", "-", "-")
    assert spread([1234.5, 1235.5], 0) == "1,235 ± 1"
    assert [duration(seconds) for seconds in (8.66, 120, 31_464)] == ["8.7 s", "2 min", "8.7 h"]
    assert (millions(269_722), millions(3.66e9)) == ("0.27 M", "3.66 G")
