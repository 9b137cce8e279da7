"""Rows become runs, files and a page; what is there is not trained again."""

import json
import shutil
from importlib import import_module
from pathlib import Path

import pytest

from cnnlab.cli import main
from cnnlab.reproduction import Results, get_study, list_studies, publish, reproduce, runner
from cnnlab.reproduction.page import made_with, write_page
from cnnlab.training import RunFolderError
from tests.reproduction.small_study import RECIPE, made_up_row

PAGE = """prose
<!-- overview: begin -->
<!-- overview: end -->
<!-- small: begin -->
of before
<!-- small: end -->
more
"""
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Rows and seeds that are trained from now on."""
    calls: list[str] = []
    train = runner._train_one

    def note(row, data, seed, *others):
        calls.append(f"{row.name} {seed}")
        return train(row, data, seed, *others)

    monkeypatch.setattr(runner, "_train_one", note)
    return calls


def test_a_study_trains_its_rows_once_and_writes_what_it_found(small, trained, tmp_path, capsys) -> None:
    results, folder = reproduce("small", tmp_path, quick=True)
    assert trained == ["narrow 0", "wide 0"], "the second row is asked for when the first has run"
    assert folder == tmp_path and results.complete()
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "results.json",
        "results.csv",
        "dots.png",
        "curves.png",
    }
    run = results.rows["wide"].runs[0]
    assert (run["epochs"], len(run["history"]["accuracy"]), run["diverged"]) == (2, 2, False)
    assert run["last_accuracy"] == pytest.approx(run["history"]["accuracy"][-1], rel=1e-5)
    assert run["history"]["learning_rate"] == pytest.approx([0.05, 0.005])
    assert results.measured == {"folders": 2}
    assert "narrow: four neurons (seeds 0; then 0 more runs)" in capsys.readouterr().out

    again, _ = reproduce("small", tmp_path, quick=True, progress=False)
    assert len(trained) == 2 and again == results and capsys.readouterr().out == ""


def test_it_goes_on_where_it_stopped(small, trained, tmp_path) -> None:
    reproduce("small", tmp_path, seeds=1, progress=False)
    assert trained == ["narrow 0"], "the row is not complete with one of two seeds"
    record = tmp_path / "narrow" / "seed-0"
    lines = (record / "metrics.jsonl").read_text()
    (record / "result.json").unlink()  # as if it had been killed before the end
    (tmp_path / "results.json").unlink()
    results, _ = reproduce("small", tmp_path, rows=["narrow"], progress=False)
    assert trained[1:] == ["narrow 0", "narrow 1"] and results.complete("narrow")
    assert (record / "metrics.jsonl").read_text() == lines, "resumed, not trained anew"


def test_an_interruption_says_how_to_go_on(small, tmp_path, monkeypatch) -> None:
    module = import_module("cnnlab.reproduction.reproduce")
    monkeypatch.setattr(module, "train_row", lambda *args, **options: False)
    where = tmp_path / "a place"
    with pytest.raises(KeyboardInterrupt) as stop:
        reproduce("small", where, quick=True, progress=False)
    expected = f"interrupted; go on with:  python examples/reproduce.py small --quick --out '{where}'"
    assert str(stop.value) == expected


def test_a_run_of_another_recipe_is_refused(small, tmp_path, monkeypatch) -> None:
    reproduce("small", tmp_path, quick=True, rows=["narrow"], progress=False)
    monkeypatch.setattr("tests.reproduction.small_study.RECIPE", RECIPE.replace(epochs=3))
    with pytest.raises(RunFolderError, match=r"a run of the row narrow in .*seed-0, got one with another recipe; do"):
        reproduce("small", tmp_path, quick=True, progress=False)
    monkeypatch.undo()


def test_results_of_another_version_are_refused(small, tmp_path) -> None:
    reproduce("small", tmp_path, quick=True, rows=["narrow"], progress=False)
    with pytest.raises(RunFolderError, match="Expected results of small-3-epochs in .*, got small-quick; do choose"):
        reproduce("small", tmp_path, epochs=3, progress=False)


def test_a_run_that_diverges_is_a_result(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tests.reproduction.small_study.RECIPE", RECIPE.replace(learning_rate=1e6, weight_decay=1e6))
    results, _ = reproduce("small", tmp_path, quick=True, rows=["narrow"], progress=False)
    (run,) = results.rows["narrow"].runs
    assert run["diverged"] and run["test_accuracy"] is None and run["stop_reason"].startswith("diverged")
    assert json.loads((tmp_path / "results.json").read_text())["rows"][0]["test_accuracy"]["n"] == 0


def test_bad_input_is_one_line(small, tmp_path) -> None:
    with pytest.raises(ValueError, match="Expected a row of small, got 'broad'; the rows are narrow"):
        reproduce("small", tmp_path, rows=["broad"], progress=False)
    with pytest.raises(ValueError, match="Expected workers of at least 1, got 0; do raise it"):
        reproduce("small", tmp_path, workers=0, progress=False)
    with pytest.raises(ValueError, match="Expected the name of a reproduction, got 'figure88'; did you mean figure8?"):
        get_study("figure88")


@pytest.mark.slow
def test_processes_of_a_core_each_find_the_same(small, tmp_path) -> None:
    alone, _ = reproduce("small", tmp_path / "a", rows=["narrow"], progress=False)
    beside, _ = reproduce("small", tmp_path / "b", rows=["narrow"], workers=2, progress=False)
    for one, two in zip(alone.rows["narrow"].runs, beside.rows["narrow"].runs, strict=True):
        assert two["history"]["train_loss"] == pytest.approx(one["history"]["train_loss"], rel=1e-4)  # other sums
    assert "epoch" in (tmp_path / "b" / "narrow" / "seed-1.log").read_text()


def test_the_page_gets_tables_verdicts_figures_and_an_overview(small, tmp_path) -> None:
    (tmp_path / "reproduction.md").write_text(PAGE)
    write_page(tmp_path)
    empty = (tmp_path / "reproduction.md").read_text()
    assert "**Not run in full**: `python examples/reproduce.py small` (seconds)." in empty
    assert "| wide is better | not run | - | - | `reproduce small` |" in empty

    rows = [made_up_row("narrow", [0.5, 0.7]), made_up_row("wide", [0.9, 0.9])]
    publish(Results("small", rows={row.row: row for row in rows}), tmp_path)
    publish(Results("small", quick=True, rows={"narrow": rows[0]}), tmp_path)
    page = (tmp_path / "reproduction.md").read_text()
    assert page.startswith("prose\n") and page.endswith("<!-- small: end -->\nmore\n") and "of before" not in page
    assert "| narrow | 0.60 |" in page and "- *wide is better* Holds: 0.90 against 0.60. Rule: a higher mean." in page
    assert "| wide is better | holds | - | not run | `reproduce small` |" in page
    assert "**The quick version: one seed.** `python examples/reproduce.py small --quick`" in page
    assert "![accuracies](figures/small-dots.png)" in page and (tmp_path / "figures" / "small-dots.png").is_file()
    assert "[small.json](results/small.json), [small.csv](results/small.csv)" in page
    assert page == write_page(tmp_path).read_text(), "written again, it is the same"

    publish(Results("small", rows={"narrow": made_up_row("narrow", [0.6], 3), "wide": rows[1]}), tmp_path)
    kept = json.loads((tmp_path / "results" / "small.json").read_text())["rows"][0]["runs"]
    assert [run["test_accuracy"] for run in kept] == [0.6, 0.7], "the other seed, whose folder may be elsewhere, stays"


def test_the_page_of_the_documentation_is_what_the_files_beside_it_say(tmp_path) -> None:
    shutil.copytree(DOCS, tmp_path / "docs")
    assert write_page(tmp_path / "docs").read_text() == (DOCS / "reproduction.md").read_text()


def test_the_line_below_a_table_says_what_made_it() -> None:
    rows = {"row": made_up_row("row", [0.5, 0.6])}
    rows["row"].runs[1]["git_dirty"] = True
    assert made_with(Results("small", rows=rows)) == (
        "2 runs, 2 min of training in all (median 60.0 s a run); a processor, 2 threads; jax 0.10.2, flax 0.12.8; "
        "revision aaaaaaa and aaaaaaa, changed."
    )
    assert made_with(Results("small")) == ""


def test_the_command_line_lists_and_runs(small, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("cnnlab.reproduction.list_studies", lambda: [small])
    monkeypatch.setattr("cnnlab.reproduction.get_study", lambda name: small)
    assert main(["reproduce"]) == 0
    assert "small  the wide one is better  about 0.1 min" in capsys.readouterr().out
    assert main(["reproduce", "small", "--quick", "--quiet", "--rows", "narrow", "--out", str(tmp_path / "runs")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("\nTwo small networks\n") and "NOT RUN  wide is better\n  rule: a higher mean" in out
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
