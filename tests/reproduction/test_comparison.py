"""The judge: Welch's test against SciPy and a table, and what each version of a study may decide."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from cnnlab.reproduction import Results, Row, RowResults
from cnnlab.reproduction.comparison import Difference, judge_higher
from cnnlab.reproduction.gather import with_known
from cnnlab.training import Recipe
from tests.reproduction.small_study import made_up_row

NO_RUNS = RowResults("low", "")


def outcome(high: RowResults, low: RowResults, **version) -> str:
    return verdict_of(high, low, **version).outcome


def verdict_of(high: RowResults, low: RowResults, **version):
    results = Results("small", rows={"high": replace(high, row="high"), "low": replace(low, row="low")}, **version)
    return judge_higher(results, "a claim", "share", ("high", "low"), lambda row: row.values("test_accuracy"))


ABOVE, BELOW = made_up_row("", [0.90, 0.91, 0.92]), made_up_row("", [0.80, 0.81, 0.82])


@pytest.mark.parametrize("n", [2, 3, 5])
def test_the_test_is_that_of_welch(n: int) -> None:
    rng = np.random.default_rng(n)
    these, others = rng.normal(0.7, 0.01, n).tolist(), rng.normal(0.69, 0.03, 3).tolist()
    difference = Difference.of(these, others)
    assert difference is not None
    np.testing.assert_allclose(difference.p, stats.ttest_ind(these, others, equal_var=False).pvalue, rtol=1e-9)
    np.testing.assert_allclose(difference.value, np.mean(these) - np.mean(others), rtol=1e-9)


def test_with_two_values_each_two_standard_errors_are_not_enough() -> None:
    # Equal variances and two values each give two degrees of freedom, of which a table has t = 4.303 at 5 %.
    for times, positive in ((4.2, None), (4.4, True)):
        error = 0.01 * 2**0.5
        difference = Difference.of([0.5 + times * error, 0.52 + times * error], [0.5, 0.52])
        assert difference is not None and difference.error == pytest.approx(error, rel=1e-9)
        assert difference.positive is positive
    assert Difference.of([0.5, 0.52], []) is None
    single = Difference.of([0.9], [0.1])
    assert single is not None and (single.error, single.p, single.positive) == (None, None, None)
    assert str(single) + single.chance == "+80.00"


def test_values_without_spread_differ_or_are_the_same() -> None:
    same, other = Difference.of([0.5, 0.5], [0.5, 0.5]), Difference.of([0.5, 0.5], [0.6, 0.6])
    assert same is not None and same.positive is None and same.chance == ", p = 1"
    assert other is not None and other.positive is False and other.chance == ", p < 0.001"


def test_a_claim_holds_above_fails_below_and_is_open_in_between() -> None:
    assert (outcome(ABOVE, BELOW), outcome(BELOW, ABOVE), outcome(ABOVE, ABOVE)) == (
        "holds", "does not hold", "undecided",
    )  # fmt: skip
    error = 100 * np.sqrt(2 * 0.01**2 / 3)
    expected = f"high 91.00 ± 1.00 % (3), low 81.00 ± 1.00 % (3): +10.00 ± {error:.2f} points, p < 0.001"
    assert verdict_of(ABOVE, BELOW).measured == expected
    assert "`high` is above that of `low` by Welch's t test, two-sided at 5 %" in verdict_of(ABOVE, BELOW).rule


def test_every_planned_run_of_both_rows_has_to_be_there_and_at_least_two() -> None:
    assert outcome(ABOVE, NO_RUNS) == outcome(NO_RUNS, BELOW) == "not run"
    gap = replace(BELOW, runs=[*BELOW.runs[:1], {**BELOW.runs[1], "seed": 3}, BELOW.runs[2]])
    for row in (replace(BELOW, planned_seeds=4), gap, made_up_row("", [0.80, 0.81, None]), made_up_row("", [0.8])):
        assert outcome(ABOVE, row) == outcome(row, ABOVE) == "undecided"
    lost = verdict_of(ABOVE, made_up_row("", [None, None]))
    assert (lost.outcome, lost.measured) == ("undecided", "high 91.00 ± 1.00 % (3), low 2 diverged")


def test_fewer_seeds_than_planned_decide_a_shortened_version_alone() -> None:
    def outcomes(row: RowResults) -> list[str]:
        versions: list[dict] = [{}, {"epochs": 8}, {"quick": True}]
        return [outcome(ABOVE, row, **version) for version in versions]

    two = replace(made_up_row("", [0.80, 0.81], 5), asked_seeds=2)
    assert outcomes(two) == ["undecided", "holds", "undecided"]
    assert outcomes(replace(two, asked_seeds=3)) == ["undecided"] * 3, "one of those asked for is missing"
    assert outcomes(replace(two, asked_seeds=None)) == ["undecided"] * 3, "nobody asked for fewer"
    one = replace(made_up_row("", [0.80], 5), asked_seeds=1)
    assert outcomes(one) == ["undecided"] * 3, "a single run"
    lost = replace(made_up_row("", [0.80, 0.81, None], 5), asked_seeds=2)
    assert outcomes(lost) == ["undecided"] * 3, "one that is there besides has diverged"
    gap = replace(two, runs=[two.runs[0], {**two.runs[1], "seed": 2}])
    assert outcomes(gap) == ["undecided"] * 3, "seed 2 does not stand for seed 1"
    more = replace(made_up_row("", [0.80, 0.81, 0.82], 3), asked_seeds=9)
    assert outcomes(more) == ["holds", "holds", "undecided"], "more than planned are not waited for"
    assert "undecided in between, with a planned run (of a shortened version, one asked for) missing" in (
        verdict_of(ABOVE, two, epochs=8).rule
    )


def test_fewer_seeds_asked_for_afterwards_do_not_decide() -> None:
    def asked(seeds: int | None, *accuracies: list[float]) -> Results:
        rows = zip(("high", "low"), accuracies, strict=True)
        found = {name: replace(made_up_row(name, values, 5), asked_seeds=seeds) for name, values in rows}
        return Results("small", epochs=8, rows=found)

    study = [Row(name, "", "mlp", Recipe(), 5, {}, "digits") for name in ("high", "low")]
    two = asked(2, [0.90, 0.91], [0.80, 0.81])
    for before, outcome in ((asked(3, [0.90, 0.91, 0.92], [0.80, 0.81]), "undecided"), (two, "holds"),
                            (asked(None, [0.90], [0.80]), "undecided"), (asked(1, [0.90], [0.80]), "holds"),
                            (Results("small", epochs=8), "holds")):  # fmt: skip
        found = with_known(study, two, before)
        share = judge_higher(found, "a claim", "share", ("high", "low"), lambda row: row.values("test_accuracy"))
        assert share.outcome == outcome
    more = with_known(study, asked(3, [0.90, 0.91], [0.80, 0.81]), two)
    assert {row.asked_seeds for row in more.rows.values()} == {3}, "but more can be asked for"


def test_a_quick_version_decides_nothing_and_a_shortened_one_refutes_nothing() -> None:
    assert outcome(ABOVE, BELOW, quick=True) == outcome(BELOW, ABOVE, quick=True) == "undecided"
    assert verdict_of(ABOVE, BELOW, quick=True).measured.endswith("p < 0.001 (quick version)")
    assert (outcome(ABOVE, BELOW, epochs=8), outcome(BELOW, ABOVE, epochs=8)) == ("holds", "undecided")
    assert verdict_of(BELOW, ABOVE, epochs=8).measured.endswith("p < 0.001 (schedules shortened to 8 epochs)")
