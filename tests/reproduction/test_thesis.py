"""The study of the thesis' 65 %: rows, table, verdicts and figures, from results made by hand."""

from typing import Any

import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.report import save_figure
from cnnlab.reproduction.gather import rows_of
from cnnlab.reproduction.results import Results, RowResults
from cnnlab.reproduction.thesis import Thesis

STUDY = Thesis()
LITERAL, FLATTEN, LIMIT = 0, 1, 2  # the order of the verdicts
EPOCHS = 3


def a_run(seed: int, accuracy: float | None, *, history: bool = False) -> dict[str, Any]:
    """A run of three epochs, with the fields that count here."""
    run = {
        "seed": seed,
        "test_accuracy": accuracy,
        "diverged": accuracy is None,
        "best_epoch": 10 + seed,
        "last_train_loss": 0.25 + seed / 2,
    }
    if history:
        curve = [0.3, 0.2, 0.4]
        keys = ("train_loss", "train_accuracy", "loss", "accuracy", "learning_rate")
        run["history"] = {key: curve for key in keys}
    return run


def results_of(
    accuracies: dict[str, list[float | None]],
    planned: int = 2,
    *,
    seen: dict[str, list[float]] | None = None,
    history: bool = False,
    **version: Any,
) -> Results:
    """Rows with these accuracies, and so many seeds planned; with `seen`, those of later seeds."""
    seen = seen or {}
    rows = {
        name: RowResults(name, f"what {name} is", recipe={"held_out": 0}, seen_seeds=len(seen.get(name, [])),
                         planned_seeds=planned + len(seen.get(name, [])),
                         runs=[a_run(seed, value, history=history)
                               for seed, value in enumerate([*seen.get(name, []), *values])])
        for name, values in accuracies.items()
    }  # fmt: skip
    return Results("thesis", rows=rows, **version)


def outcomes(results: Results) -> list[str]:
    return [verdict.outcome for verdict in STUDY.verdicts(results)]


@pytest.mark.parametrize("quick", [False, True])
def test_every_row_is_a_recipe_and_a_network_that_cnnlab_knows(quick: bool) -> None:
    rows = STUDY.rows(Results("thesis", quick=quick))
    names = [row.name for row in rows]
    assert len(set(names)) == len(names) == (4 if quick else 11) and names[0] == "literal"
    for row in rows:
        network = nnx.eval_shape(lambda row=row: cnnlab.create_model(row.model, rngs=nnx.Rngs(0), **row.options))
        assert row.in_epochs(2).recipe.epochs == 2
        parameters = sum(np.prod(leaf.shape) for _, leaf in nnx.to_flat_state(nnx.state(network, nnx.Param)))
        if row.name in ("literal", "flatten", "modern"):
            assert parameters == (104_406 if row.name == "flatten" else 264_806), "the counts of both readings"


def test_the_rows_are_the_recipe_of_the_thesis_with_one_named_change_each() -> None:
    rows = {row.name: row for row in STUDY.rows(Results("thesis"))}
    literal = rows.pop("literal")
    assert (literal.recipe, dict(literal.options), literal.data) == (cnnlab.get_recipe("thesis"), {}, "cifar10")
    changes = {}
    for name, row in rows.items():
        then, now = literal.recipe.to_dict(), row.recipe.to_dict()
        texts = ("name", "source", "result")
        changes[name] = {key for key in now if now[key] != then[key] and key not in texts} | set(row.options)
    assert len(changes.pop("modern")) > 5
    assert changes == {
        "flatten": {"hidden"},
        "no-noise": {"noise"},
        "literal-held-out": {"held_out"},
        "shuffled": {"order"},
        "permuted": {"order"},
        "lecun-normal": {"init"},
        "softmax-twice": {"softmax_output"},
        "filters-12-32": {"filters"},
        "flatten-held-out": {"hidden", "held_out"},
    }
    assert sum(row.seeds for row in (literal, *rows.values())) == 54
    assert {row.name: row.seen for row in (literal, *rows.values()) if row.seen} == {
        "literal": 5,
        "flatten": 5,
        "modern": 3,
    }
    assert literal.in_epochs(5).seen == 0 and literal.in_epochs(100).seen == 5, "of shortened versions nothing was seen"


def test_the_quick_rows_leave_most_images_to_train_on() -> None:
    for row in STUDY.rows(Results("thesis", quick=True)):
        assert row.data == "cifar10?train=10000&test=2000" and row.recipe.held_out <= 1000 and row.seeds == 2


def test_the_table_has_the_difference_to_the_literal_reading_and_its_standard_error() -> None:
    results = results_of({"literal": [0.61, 0.59], "flatten": [0.70, 0.64], "no-noise": []})
    head, lines = STUDY.table(results)
    # By hand: sd 1.4142 and 4.2426 points, so that the error is sqrt(2 / 2 + 18 / 2) = sqrt(10).
    assert lines == [
        ["literal", "what literal is", "60.00 ± 1.41 % (2)", "-", "10 11", "0.50 ± 0.35", "not reached"],
        [
            "flatten",
            "what flatten is",
            "67.00 ± 4.24 % (2)",
            "+7.00 ± 3.16, p = 0.23",
            "10 11",
            "0.50 ± 0.35",
            "reached",
        ],
        ["no-noise", "what no-noise is", "not run", "-", "-", "-", "not run"],
    ]
    assert len(head) == len(lines[0])


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ([], "not run"),
        ([0.70], "undecided"),
        ([0.63, 0.65], "holds"),  # sd 1.414 points: 64 + 2.83
        ([0.61, 0.62], "does not hold"),  # sd 0.707 points: 61.5 + 1.41
        ([0.66, 0.66], "holds"),
    ],
)
def test_65_percent_is_reached_within_two_standard_deviations_of_the_mean(values: list[float], outcome: str) -> None:
    assert outcomes(results_of({"literal": values, "flatten": [0.60, 0.60]}))[:2] == [outcome, "does not hold"]
    assert outcomes(results_of({"literal": [0.60, 0.60], "flatten": values}))[:2] == ["does not hold", outcome]


def test_a_row_with_fewer_seeds_than_planned_is_not_judged() -> None:
    results = results_of({"literal": [0.60, 0.60], "modern": [0.77, 0.77]}, planned=3)
    assert outcomes(results) == ["undecided", "not run", "undecided"]
    assert [line[-1] for line in STUDY.table(results)[1]] == ["undecided", "undecided"]


@pytest.mark.parametrize(("version", "limit"), [({"quick": True}, "undecided"), ({"epochs": 5}, "holds")])
def test_a_shorter_version_refutes_nothing_and_a_quick_one_decides_nothing(version: dict[str, Any], limit: str) -> None:
    better = results_of({"literal": [0.47, 0.48], "modern": [0.57, 0.58]}, **version)
    assert outcomes(better) == ["undecided", "not run", limit]
    assert [line[-1] for line in STUDY.table(better)[1]] == ["undecided", "undecided"]
    assert "47.50 ± 0.71 % (2)" in STUDY.verdicts(better)[LITERAL].measured
    worse = results_of({"literal": [0.57, 0.58], "modern": [0.47, 0.48]}, **version)
    assert outcomes(worse)[LIMIT] == "undecided"


def test_the_modern_recipe_has_to_be_above_the_literal_one() -> None:
    # Both sd 1.414 points, so that the error of the difference is sqrt(2 / 2 + 2 / 2) = 1.414 points; with two degrees
    # of freedom 4.303 times as much are needed, 6.09 points.
    held = STUDY.verdicts(results_of({"literal": [0.59, 0.61], "modern": [0.652, 0.672]}))
    assert held[LIMIT].outcome == "holds" and ": +6.20 ± 1.41 points, p = 0.0" in held[LIMIT].measured
    assert not any(verdict.afterwards for verdict in held)
    assert outcomes(results_of({"literal": [0.59, 0.61], "modern": [0.649, 0.669]}))[LIMIT] == "undecided"
    assert outcomes(results_of({"literal": [0.652, 0.672], "modern": [0.59, 0.61]}))[LIMIT] == "does not hold"


def test_runs_that_had_been_seen_when_the_rules_were_written_do_not_judge() -> None:
    seen = {"literal": [0.70, 0.80, 0.75], "modern": [0.10, 0.20]}
    results = results_of({"literal": [0.60, 0.61], "modern": [0.76, 0.77]}, seen=seen)
    verdicts = STUDY.verdicts(results)
    assert [verdict.outcome for verdict in verdicts] == ["does not hold", "not run", "holds"]
    assert verdicts[LITERAL].measured == "60.50 ± 0.71 % (2)"
    assert "modern 76.50 ± 0.71 % (2), literal 60.50 ± 0.71 % (2): +16.00" in verdicts[LIMIT].measured
    assert STUDY.table(results)[1][0][2] == "69.20 ± 8.70 % (5)", "the table has them all"
    assert "over the seeds from 5 on, which were run after this rule was written" in verdicts[LITERAL].rule
    assert "`modern`, over the seeds from 3 (`modern`) and 5 (`literal`) on, which" in verdicts[LIMIT].rule
    alone = results_of({"literal": [], "modern": [0.77, 0.78]}, planned=0, seen=seen)
    assert outcomes(alone) == ["undecided", "not run", "undecided"]
    assert STUDY.verdicts(alone)[LITERAL].measured == "75.00 ± 5.00 % (3), all seen before the rule"


@pytest.mark.parametrize("version", [{"quick": True}, {"epochs": 5}])
def test_of_other_versions_no_seed_had_been_seen(version: dict[str, Any]) -> None:
    results = Results("thesis", **version)
    assert not any(row.seen for row in rows_of(STUDY, results))
    assert not any("seeds from" in verdict.rule for verdict in STUDY.verdicts(results))


def test_nothing_found_is_a_table_without_lines_and_verdicts_that_say_so() -> None:
    nothing = Results("thesis")
    assert outcomes(nothing) == ["not run"] * 3 and STUDY.table(nothing)[1] == [] and STUDY.draw(nothing) == {}


def test_a_diverged_run_counts_as_a_run_and_has_no_accuracy() -> None:
    results = results_of({"literal": [0.60, None], "flatten": [None, None]})
    assert outcomes(results)[:2] == ["undecided", "undecided"], "no standard deviation"
    assert [line[2] for line in STUDY.table(results)[1]] == ["60.00 % (1), 1 diverged", "2 diverged"]
    assert set(STUDY.draw(results)) == {"accuracies"}


def test_the_figures_are_dots_for_every_row_and_curves_of_the_runs_that_kept_them(tmp_path) -> None:
    accuracies: dict[str, list[float | None]] = {"literal": [0.60, 0.61], "flatten": [0.59], "modern": [0.77]}
    assert set(STUDY.draw(results_of(accuracies))) == {"accuracies"}
    figures = STUDY.draw(results_of(accuracies, history=True))
    assert set(figures) == set(STUDY.figures)
    axes = figures["accuracies"].axes[0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["literal", "flatten", "modern"]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [60, 61], rtol=1e-12)
    of_literal = figures["literal-curves"].axes[1].lines[0]
    np.testing.assert_array_equal(of_literal.get_xdata(), np.arange(1, EPOCHS + 1))
    np.testing.assert_allclose(of_literal.get_ydata(), [30, 20, 40], rtol=1e-12)
    for name, figure in figures.items():
        assert save_figure(figure, tmp_path / f"{name}.png").stat().st_size > 1000
