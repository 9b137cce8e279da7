"""Whether one row is better than another: the rule that several studies judge by."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from .study import Verdict

# About two standard errors of a difference that come from the number of test images alone: 10,000 of them at an
# accuracy of 85 %, and the 2,000 of a quick version at 50 %.
_ALONE, _ALONE_QUICK = 0.01, 0.04

RULE = (
    "the means differ by more than two standard errors of their difference; with one seed, by more than "
    f"{100 * _ALONE:.0f} point (quick versions, {100 * _ALONE_QUICK:.0f} points)"
)


@dataclass(frozen=True)
class Difference:
    """How far the mean of some values lies above that of others.

    Attributes:
        value: difference of the means.
        error: its standard error; None where one of the two is a single value.
        quick: whether the values are from a quick version, which has fewer test images.
    """

    value: float
    error: float | None
    quick: bool

    @classmethod
    def of(cls, these: Sequence[float], others: Sequence[float], *, quick: bool) -> Difference | None:
        """Compare shares, such as accuracies; None where there are none of one kind."""
        if not these or not others:
            return None
        error = None
        if min(len(these), len(others)) > 1:
            error = math.sqrt(sum(statistics.variance(values) / len(values) for values in (these, others)))
        return cls(statistics.fmean(these) - statistics.fmean(others), error, quick)

    @property
    def positive(self) -> bool | None:
        """Judge by `RULE`: True above, False below, None where the two cannot be told apart."""
        alone = _ALONE_QUICK if self.quick else _ALONE
        margin = alone if self.error is None else 2 * self.error
        return self.value > 0 if abs(self.value) > margin else None

    def __str__(self) -> str:
        """Write it as `-1.20 ± 0.35`, in points of 1 %."""
        return f"{100 * self.value:+.2f}" + ("" if self.error is None else f" ± {100 * self.error:.2f}")


def judge_higher(
    claim: str, what: str, these: Sequence[float], others: Sequence[float], *, quick: bool, began: bool
) -> Verdict:
    """Judge a claim that holds when these values are higher than others, by `RULE`.

    Args:
        claim: the claim.
        what: what is to be higher, for the rule.
        these: shares, such as accuracies.
        others: those that they are compared with.
        quick: whether they are from a quick version.
        began: whether there are runs of both; without values these have diverged, which is undecided, not "not run".
    """
    rule, difference = f"{what}: {RULE}", Difference.of(these, others, quick=quick)
    if difference is not None:
        return Verdict.of(claim, rule, f"{difference} points", difference.positive)
    return Verdict.of(claim, rule, "nothing to compare: runs have diverged", None) if began else Verdict(claim, rule)
