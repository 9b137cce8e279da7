"""How claims are judged: what a version of a study may decide, and whether one row is better than another."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .errors import row_cell
from .results import Results, RowResults
from .study import Verdict

_LEVEL = 0.05
WELCH = "Welch's t test, two-sided at 5 %"
OPEN = (
    "with a planned run (of a shortened version, one asked for) missing or diverged, with a single run, in the quick "
    "version, and where shortened schedules would refute"
)
"""When every rule leaves a claim undecided."""


def later_seeds(results: Results, first: int | str) -> str:
    """Return, for the rule of rows that have a `Row.seen`, by which seeds it judges in full length: from `first` on."""
    if results.quick or results.epochs is not None:  # of which none had been seen
        return ""
    return f", over the seeds from {first} on, which were run after this rule was written,"


def judged_cell(row: RowResults, values: Callable[[RowResults], Sequence[float]]) -> str:
    """Write the values of the runs that judge a row, or of the others, saying so, where there are none yet."""
    cell = row_cell(row.judged, values(row.judged))
    return f"{cell}, all seen before the rule" if row.judged.seen_seeds else cell


@dataclass(frozen=True)
class Difference:
    """How far the mean of some values lies above that of others.

    Attributes:
        value: difference of the means.
        error: its standard error; None where one of the two is a single value.
        p: how likely so large a difference is by chance, by Welch's t test (1947), two-sided; None likewise.
    """

    value: float
    error: float | None = None
    p: float | None = None

    @classmethod
    def of(cls, these: Sequence[float], others: Sequence[float]) -> Difference | None:
        """Compare values; None where there are none of one kind."""
        if not these or not others:
            return None
        value = statistics.fmean(these) - statistics.fmean(others)
        if min(len(these), len(others)) < 2:
            return cls(value)
        from scipy.stats import ttest_ind_from_stats

        facts = [(statistics.fmean(values), statistics.stdev(values), len(values)) for values in (these, others)]
        error = math.sqrt(sum(sd**2 / n for _, sd, n in facts))
        if not error:
            return cls(value, error, float(value == 0))
        return cls(value, error, float(ttest_ind_from_stats(*facts[0], *facts[1], equal_var=False).pvalue))

    @property
    def positive(self) -> bool | None:
        """True above, False below, None where the two cannot be told apart."""
        return self.value > 0 if self.p is not None and self.p < _LEVEL else None

    def __str__(self) -> str:
        """Write a difference of shares as `-1.20 ± 0.35`, in points of 1 %."""
        return f"{100 * self.value:+.2f}" + ("" if self.error is None else f" ± {100 * self.error:.2f}")

    @property
    def chance(self) -> str:
        """Write p as `, p = 0.012`; nothing without it."""
        if self.p is None:
            return ""
        return f", p = {self.p:.2g}" if self.p >= 0.001 else ", p < 0.001"


def enough(results: Results, row: RowResults, values: Sequence[float]) -> bool:
    """Whether a row can be judged: every run that it takes is there and has a value, and two are unseen (`Row.seen`).

    Args:
        results: of the version. In full length it takes all runs that the study plans, shortened those asked for.
        row: of the version.
        values: of its runs, one for each that has one.
    """
    unseen = sum(run["seed"] >= row.seen_seeds for run in row.runs)
    return not row.lacking(results.judged_seeds(row)) and len(values) == len(row.runs) and unseen >= 2


def allowed(results: Results, held: bool | None) -> bool | None:
    """Return what a version of a study may decide: the quick one nothing, and one with shorter schedules no refusal."""
    if results.quick:
        return None
    return held if results.epochs is None else held or None


def settle(results: Results, claim: str, rule: str, measured: str, held: bool | None) -> Verdict:
    """Judge as far as the version allows, and say in `measured` which it is.

    Args:
        results: of the version.
        claim, rule, measured: as in `Verdict`.
        held: what the rule gives; None where it cannot tell.
    """
    if results.quick:
        measured += " (quick version)"
    elif results.epochs is not None:
        measured += f" (schedules shortened to {results.epochs} epochs)"
    return Verdict.of(claim, rule, measured, allowed(results, held))


def judge_higher(
    results: Results,
    claim: str,
    what: str,
    names: tuple[str, str],
    values: Callable[[RowResults], Sequence[float]],
    seeds: str = "",
) -> Verdict:
    """Judge a claim that holds when one row has higher values than another.

    Args:
        results: of a study.
        claim: the claim.
        what: what the values are, for the rule.
        names: the row with the higher values, and the other.
        values: gives the values of a row, shares, one per run that has not diverged.
        seeds: by which they are judged, for the rule (`later_seeds`), where the rows have some that had been seen.
    """
    higher, lower = names
    rule = (
        f"the mean {what} of `{higher}`{seeds} is above that of `{lower}` by {WELCH}; it does not hold where it is "
        f"below by that test; undecided in between, {OPEN}"
    )
    rows = results.finished(higher, lower)
    if len(rows) < 2:
        return Verdict(claim, rule)
    found = [values(row.judged) for row in rows]
    measured = ", ".join(f"{row.row} {judged_cell(row, values)}" for row in rows)
    difference, held = Difference.of(*found), None
    if difference is not None:
        measured += f": {difference} points{difference.chance}"
        whole = all(enough(results, row, values(row)) for row in rows)
        held = difference.positive if whole else None
    return settle(results, claim, rule, measured, held)
