"""What examples/thesis_study.py publishes, from run folders made by hand."""

import csv
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from flax import nnx

import cnnlab

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PAGE = "prose\n<!-- thesis table: begin (by a script) -->\nold\n<!-- thesis table: end -->\nmore prose\n"
CLEAN = {"git_revision": "a" * 40, "git_dirty": False}


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, imported as it runs: from its own folder."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("thesis_study")
    for name in ("thesis_study", "thesis_results"):
        sys.modules.pop(name, None)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "reproduction.md").write_text(PAGE)
    return tmp_path / "docs"


def write_run(out: Path, row: str, seed: int, accuracy: float, code: dict) -> None:
    """A finished run of two epochs, with the fields of a real one that count here."""
    folder = out / row / f"seed-{seed}"
    folder.mkdir(parents=True)
    result = {"best_accuracy": accuracy, "best_epoch": 2, "epochs": 2, "stop_reason": "converged", "train_seconds": 9.0}
    (folder / "result.json").write_text(json.dumps({**result, "evaluation": {"accuracy": accuracy}}))
    environment = {"python": "3.11.7", "jax": "0.10.2", "user": "somebody", **code}
    (folder / "environment.json").write_text(json.dumps(environment))
    both = {"train_accuracy": 0.5, "loss": 1.0, "accuracy": accuracy, "monitor": "test", "learning_rate": 0.01}
    lines = [{"epoch": n, "train_loss": 1 / n, "images_per_second": 1000.0 * n, **both} for n in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def published(docs: Path) -> dict[str, dict]:
    return {entry["row"]: entry for entry in json.loads((docs / "results" / "thesis.json").read_text())["rows"]}


def test_two_runs_become_json_csv_figures_and_a_table(study, docs: Path, tmp_path: Path, capsys) -> None:
    rows = [study.Row("literal", "to the letter", seeds=2), study.Row("flatten", "other widths")]
    for seed, accuracy in enumerate((0.61, 0.59)):
        write_run(tmp_path, "literal", seed, accuracy, CLEAN)
    study.gather(rows, tmp_path, docs)

    literal = published(docs)["literal"]
    assert (literal["n"], literal["command"]) == (2, "python examples/thesis_study.py --rows literal")
    np.testing.assert_allclose([literal["mean"], literal["sd"]], [0.6, np.std([0.61, 0.59], ddof=1)], rtol=1e-12)
    first = literal["runs"][0]
    assert (first["last_train_loss"], first["images_per_second"], first["best_epoch"]) == (0.5, 1500, 2)
    assert (first["git_revision"], first["git_dirty"]) == ("a" * 40, False)
    assert "user" not in first["environment"], "nothing of a person is published"
    assert published(docs)["flatten"]["n"] == 0

    with open(docs / "results" / "thesis.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [(line["row"], line["seed"], line["git_revision"], line["git_dirty"]) for line in table] == [
        ("literal", "0", "a" * 40, "False"),
        ("literal", "1", "a" * 40, "False"),
    ]
    assert {path.name for path in (docs / "figures").iterdir()} == {
        "thesis-accuracies.png",
        "thesis-literal-curves.png",
    }
    page = (docs / "reproduction.md").read_text()
    assert page.startswith("prose\n<!-- thesis table: begin (by a script) -->\n\n| row |")
    assert page.endswith("|\n\n<!-- thesis table: end -->\nmore prose\n") and "old" not in page
    does_not = "| `literal` | to the letter | 65 % | 60.00 ± 1.41 % (2) | - | 2 2 | 0.50 | does not reach 65 % |"
    assert does_not in page and "| `flatten` | other widths | 65 % | - | - | - | - | not run |" in page
    assert str(docs / "results" / "thesis.json") in capsys.readouterr().out


def test_a_row_of_another_revision_than_the_literal_one_is_marked(study, docs: Path, tmp_path: Path) -> None:
    codes = {
        "literal": CLEAN,
        "same": CLEAN,
        "other": {**CLEAN, "git_revision": "b" * 40},
        "changed": {**CLEAN, "git_dirty": True},
        "unknown": {},
    }
    for row, code in codes.items():
        write_run(tmp_path, row, 0, 0.6, code)
    study.gather([study.Row(row, "", seeds=1) for row in codes], tmp_path, docs)
    found = published(docs)
    assert {row: entry["same_code_as_literal"] for row, entry in found.items()} == {
        "literal": True,
        "same": True,
        "other": False,
        "changed": False,
        "unknown": None,
    }
    assert found["other"]["revisions"] == ["b" * 40]
    assert found["changed"]["revisions"] == ["a" * 40 + ", changed"]
    assert found["unknown"]["revisions"] == ["unknown"]


def test_a_run_whose_folder_is_gone_stays_as_it_was_published(study, docs: Path, tmp_path: Path) -> None:
    rows = [study.Row("literal", "", seeds=1), study.Row("flatten", "", seeds=1)]
    write_run(tmp_path / "then", "literal", 0, 0.6, CLEAN)
    study.gather(rows, tmp_path / "then", docs)
    # As it was written when the revision was one fact of the environment.
    target = docs / "results" / "thesis.json"
    content = json.loads(target.read_text())
    run = content["rows"][0]["runs"][0]
    run["environment"]["git_revision"] = run.pop("git_revision")
    del run["git_dirty"]
    target.write_text(json.dumps(content))

    write_run(tmp_path / "now", "flatten", 0, 0.5, CLEAN)
    study.gather(rows, tmp_path / "now", docs)
    found = published(docs)
    assert (found["literal"]["mean"], found["flatten"]["mean"]) == (0.6, 0.5)
    (kept,) = found["literal"]["runs"]
    assert (kept["git_revision"], kept["git_dirty"]) == ("a" * 40, None)
    assert "git_revision" not in kept["environment"]
    assert found["flatten"]["same_code_as_literal"] is None, "whether the old one had changes is not known"


def test_nothing_finished_is_one_line_and_leaves_the_docs_alone(study, docs: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="Expected finished runs in .*, got none; do run examples/thesis_study.py"):
        study.gather([study.Row("literal", "")], tmp_path / "nowhere", docs)
    assert [path.name for path in docs.iterdir()] == ["reproduction.md"]


@pytest.mark.parametrize(
    ("n", "mean", "sd", "verdict"),
    [
        (0, None, None, "not run"),
        (1, 0.7, None, "one run: no verdict"),
        (3, 0.63, 0.01, "reaches 65 %"),
        (3, 0.63, 0.0099, "does not reach 65 %"),
        (3, 0.66, 0.0, "reaches 65 %"),
    ],
)
def test_the_verdict_asks_whether_65_percent_lies_within_two_standard_deviations(study, n, mean, sd, verdict) -> None:
    results = importlib.import_module("thesis_results")
    assert results._verdict({"n": n, "mean": mean, "sd": sd}) == verdict


def test_every_row_of_the_study_is_a_recipe_and_a_network_that_cnnlab_knows(study) -> None:
    names = [row.name for row in study.ROWS]
    assert len(set(names)) == len(names) and names[0] == "literal"
    for row in study.ROWS:
        cnnlab.get_recipe(row.base).replace(**row.recipe)
        nnx.eval_shape(lambda options=row.model: cnnlab.create_model("lenet", **options))
