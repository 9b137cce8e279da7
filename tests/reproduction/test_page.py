"""What the studies found, on the page of the documentation."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from cnnlab.report import ReportError
from cnnlab.reproduction import Results, publish, reproduce
from cnnlab.reproduction.files import write_found
from cnnlab.reproduction.page import _shortened, _versions, made_with, write_page
from cnnlab.reproduction.registry import get_study, list_studies
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
def docs(tmp_path: Path) -> Path:
    """A folder with an empty page."""
    (tmp_path / "reproduction.md").write_text(PAGE)
    return tmp_path


def results_of(*rows, **more) -> Results:
    return Results("small", rows={row.row: row for row in rows}, **more)


def test_the_page_gets_tables_verdicts_figures_and_an_overview(small, docs) -> None:
    empty = write_page(docs).read_text()
    assert "**Not run in full**: `cnnlab reproduce small` (seconds)." in empty
    assert "| wide is better | not run | not run | not run | `reproduce small` |" in empty

    rows = [made_up_row("narrow", [0.5, 0.7]), made_up_row("wide", [0.9, 0.9])]
    publish(results_of(*rows), docs)
    page = publish(results_of(made_up_row("narrow", [0.5]), quick=True), docs).read_text()
    assert page.startswith("prose\n") and page.endswith("<!-- small: end -->\nmore\n") and "of before" not in page
    assert "**In full.** `cnnlab reproduce small`" in page and "Not run in full" not in page
    assert "- *wide is better* Holds: 0.90 against 0.60. Rule, made after the fact: a higher mean." in page
    assert "| narrow | 0.60 |" in page and "| wide is better | holds | not run | not run | `reproduce small` |" in page
    assert "![accuracies](figures/small-dots.png)" in page and (docs / "figures" / "small-dots.png").is_file()
    assert "[small.json](results/small.json), [small.csv](results/small.csv)" in page
    assert page == write_page(docs).read_text(), "written again, it is the same"


def test_what_is_not_whole_says_what_is_missing(small, docs) -> None:
    some = [made_up_row("narrow", [0.5, 0.7]), made_up_row("wide", [0.9], 1)]  # as asked for with one seed of it
    page = publish(results_of(*some), docs).read_text()
    assert "**In part: 3 of 4 runs; missing: 1 of wide.** `cnnlab" in page and "**Not run in full**:" in page
    quick = publish(results_of(made_up_row("narrow", [0.5]), quick=True), docs).read_text()
    assert "**The quick version: one seed: 1 of 2 runs; missing: 1 of wide.** `cnnlab" in quick


def test_rows_without_a_run_are_not_published(small, docs) -> None:
    publish(results_of(made_up_row("narrow", [], 2), measured={"costs": 1}), docs)
    assert not list(docs.rglob("small*"))


def test_runs_of_other_seeds_and_rows_stay(small, docs) -> None:
    narrow = made_up_row("narrow", [0.5, 0.7], 2, found={"hidden": [4]})
    publish(results_of(narrow, made_up_row("wide", [0.9, 0.9])), docs)
    publish(results_of(made_up_row("narrow", [0.6], 1)), docs)
    rows = json.loads((docs / "results" / "small.json").read_text())["rows"]
    assert [run["test_accuracy"] for run in rows[0]["runs"]] == [0.6, 0.7]
    assert "found" not in rows[0]["runs"][0] and rows[0]["runs"][1]["found"] == {"hidden": [4]}
    assert [run["test_accuracy"] for run in rows[1]["runs"]] == [0.9, 0.9]


def test_the_longest_of_the_shortened_versions_is_in_the_overview(small, docs, monkeypatch) -> None:
    monkeypatch.setattr("tests.reproduction.small_study.RECIPE", RECIPE.replace(epochs=20))
    narrow = made_up_row("narrow", [0.6, 0.6])
    publish(results_of(narrow, made_up_row("wide", [0.5, 0.5]), epochs=1), docs)
    page = publish(results_of(narrow, made_up_row("wide", [0.9, 0.9]), epochs=10), docs).read_text()
    assert "| wide is better | not run | holds | not run | `reproduce small` |" in page
    assert "**Shortened to 10 of 20 epochs, 2 seeds a row.** `cnnlab" in page and "small --epochs 10`" in page


def test_a_shortened_version_is_whole_with_the_seeds_that_were_asked_for(small, docs) -> None:
    rows = [made_up_row("narrow", [0.5], 2), made_up_row("wide", [0.9], 2)]
    asked = [replace(row, asked_seeds=1) for row in rows]
    page = publish(results_of(*asked, epochs=1), docs).read_text()
    assert "**Shortened to 1 of 2 epochs, 1 seed a row.** `cnnlab reproduce small --epochs 1 --seeds 1`" in page
    more = [made_up_row("narrow", [0.5, 0.7], 2), rows[1]]
    page = publish(results_of(*(replace(row, asked_seeds=1) for row in more), epochs=1), docs).read_text()
    assert "**Shortened to 1 of 2 epochs, 1 to 2 seeds a row.** `cnnlab" in page, "one more is there"
    page = publish(results_of(*more, epochs=1), docs).read_text()
    whole = "**Shortened to 1 of 2 epochs, 2 seeds a row: 3 of 4 runs; missing: 1 of wide.** `cnnlab"
    assert whole in page, "nobody asked for fewer"
    page = publish(results_of(*asked), docs).read_text()
    assert "**In part: 2 of 4 runs; missing: 1 of narrow, 1 of wide.** `cnnlab reproduce small --seeds 1`" in page


def test_what_older_files_call_planned_are_the_seeds_that_were_asked_for(small, docs) -> None:
    asked = [replace(made_up_row(name, [0.5], 2), asked_seeds=1) for name in ("narrow", "wide")]
    publish(results_of(*asked, epochs=1), docs)
    file = docs / "results" / "small-1-epochs.json"
    for planned, title in ((1, "1 seed a row.**"), (2, "2 seeds a row: 1 of 2 runs; missing: 1 of narrow.")):
        value = json.loads(file.read_text())
        for row in value["rows"]:
            row.pop("asked_seeds")
            row["planned_seeds"] = planned
        file.write_text(json.dumps(value))
        page = publish(results_of(*asked, epochs=1), docs).read_text()
        assert f"**Shortened to 1 of 2 epochs, {title}" in page


def test_a_file_is_judged_by_what_the_study_plans_now(docs) -> None:
    rows = {"literal": made_up_row("literal", [0.60, 0.61]), "flatten": made_up_row("flatten", [0.60, 0.61])}
    study = get_study("thesis")
    assert study.verdicts(Results("thesis", rows=rows))[0].outcome == "does not hold", "two planned, by the file"
    write_found(study, Results("thesis", rows=rows), docs / "results", "thesis")
    (version,) = _versions(study, docs)
    assert {(row.planned_seeds, row.seen_seeds) for row in version.rows.values()} == {(10, 5)}
    assert study.verdicts(version)[0].outcome == "undecided"
    studies = [f"<!-- {study.name}: begin -->\n<!-- {study.name}: end -->\n" for study in list_studies()]
    (docs / "reproduction.md").write_text(PAGE + "".join(studies))
    publish(Results("thesis", rows=rows), docs)
    file = json.loads((docs / "results" / "thesis.json").read_text())
    assert file["verdicts"][0]["outcome"] == "undecided" and file["rows"][0]["seen_seeds"] == 5


def test_schedules_and_seeds_that_differ_between_rows_are_written_as_ranges() -> None:
    assert _shortened(4, [164, 164], [2, 2]) == "Shortened to 4 of 164 epochs, 2 seeds a row"
    assert _shortened(8, [60, 100], [5, 3]) == "Shortened to 8 of up to 100 epochs, 3 to 5 seeds a row"


def test_a_figure_that_cannot_be_drawn_any_more_goes(small, docs, monkeypatch) -> None:
    results = results_of(made_up_row("narrow", [0.5, 0.7]))
    publish(results, docs)
    (docs / "figures" / "small-notes.png").touch()
    monkeypatch.setattr(type(small), "draw", lambda self, results: {})
    page = publish(results, docs).read_text()
    assert [path.name for path in (docs / "figures").iterdir()] == ["small-notes.png"] and "![" not in page


def test_a_page_or_a_file_that_cannot_be_read_is_named(small, docs, tmp_path) -> None:
    with pytest.raises(ReportError, match=r"Expected the page reproduction\.md in .*nowhere, got none; do name"):
        reproduce("small", tmp_path / "runs", docs=tmp_path / "nowhere", progress=False)
    assert not (tmp_path / "runs").exists(), "said before anything trains"
    publish(results_of(made_up_row("narrow", [0.5])), docs)
    (docs / "results" / "small.json").write_text("[]")
    with pytest.raises(RunFolderError, match=r"Expected the results of a study in .*small\.json, got 'TypeError"):
        write_page(docs)


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
