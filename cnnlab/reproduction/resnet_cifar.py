"""Test errors of residual networks on CIFAR-10 (He et al. 2015, table 6)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from .comparison import OPEN, WELCH, Difference, enough, settle
from .drawing import plot_curves, plot_dots
from .errors import error_cell, errors
from .he_recipe import he_recipe
from .results import Results
from .study import Row, Study, Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Layers: the paper's parameters and test error in per cent. Of 110 layers it gives the mean of five runs and the best,
# 6.43; of the others one run each.
_PAPER = {20: ("0.27 M", 8.75), 32: ("0.46 M", 7.51), 44: ("0.66 M", 7.17), 56: ("0.85 M", 6.97), 110: ("1.7 M", 6.61)}
_OF_110 = "6.61 ± 0.16 % (5), best 6.43 %"
_DEEPER = (20, 32, 44, 56)
_TOLERANCE = 0.5
_LAST = "last_accuracy"


class ResNetCifar(Study):
    """Residual networks of 20 to 110 layers by the paper's recipe (`he_recipe`), judged after the last epoch.

    The error of the epoch that was best on the test images stands beside it, since results are often given so.
    """

    name = "resnet-cifar"
    title = "Residual networks on CIFAR-10"
    claim = (
        "ResNet-20, 32, 44, 56 and 110 reach test errors of 8.75, 7.51, 7.17, 6.97 and 6.43 % "
        "(6.61 ± 0.16 % over five runs) on CIFAR-10."
    )
    source = "He et al. 2015, table 6"
    shortened = (
        "20 and 32 layers alone, 4,000 training and 1,000 test images, 8 epochs, batches of 32 at a quarter of the "
        "rate, one seed; enough to see that it runs, not to judge"
    )
    quick_minutes = 7
    full_time = "3 to 7 hours on one NVIDIA H100, by the multiply-adds; not measured"
    figures: ClassVar[Mapping[str, str]] = {
        "errors": "Test error after the last epoch: a dot per run, a bar at the mean, a diamond at the paper's value.",
        "curves": "Errors by epoch, a line per seed. Training errors are counted during an epoch and stand at "
        "its middle.",
    }

    def rows(self, results: Results) -> list[Row]:
        if results.quick:
            recipe, data = he_recipe(quick_epochs=8), "cifar10?train=4000&test=1000"
            return [Row(_name(n), f"{n} layers", _name(n), recipe, 1, data=data) for n in (20, 32)]
        return [
            Row(_name(n), f"{n} layers", _name(n), he_recipe(careful_start=n == 110), 3 if n == 110 else 5)
            for n in _PAPER
        ]

    def table(self, results: Results) -> Table:
        head = (
            "layers", "parameters, paper", "parameters", "test error, paper", "test error, last epoch (runs)",
            "test error, best epoch",
        )  # fmt: skip
        lines = []
        for layers, (parameters, error) in _PAPER.items():
            row = results.rows.get(_name(layers))
            counts = row.values("parameters") if row is not None else []
            ours = f"{counts[0]:,}" if counts else "-"
            paper = _OF_110 if layers == 110 else f"{error:.2f} %"
            cells = (error_cell(row, _LAST), error_cell(row, "test_accuracy"))
            lines.append((str(layers), parameters, ours, paper, *cells))
        return head, lines

    def verdicts(self, results: Results) -> list[Verdict]:
        return [*(_against_paper(results, layers) for layers in _PAPER), _order(results)]

    def draw(self, results: Results) -> dict[str, Figure]:
        rows = results.finished(*map(_name, _PAPER))
        if not rows:
            return {}
        names = [row.row for row in rows]
        papers = {_name(layers): error for layers, (_, error) in _PAPER.items()}
        label = "test error after the last epoch, %"
        kinds = [("accuracy", "-", "test"), ("train_accuracy", "--", "training, during the epoch")]
        return {
            "errors": plot_dots(rows, _LAST, label, error=True, marks=("the paper's value", papers)),
            "curves": plot_curves(results, [("", names)], kinds, "error, %"),
        }


def _name(layers: int) -> str:
    return f"resnet{layers}"


def _against_paper(results: Results, layers: int) -> Verdict:
    paper, name = _PAPER[layers][1], _name(layers)
    claim = f"ResNet-{layers} reaches a test error of {paper:.2f} %."
    rule = f"the mean after the last epoch is at most {_TOLERANCE:g} points above that; undecided {OPEN}"
    (row,) = results.finished(name) or [None]
    if row is None:
        return Verdict(claim, rule)
    ours, measured, held = errors(row, _LAST), error_cell(row, _LAST), None
    if ours:
        points = 100 * statistics.fmean(ours) - paper
        measured += f", {points:+.2f} points"
        held = points <= _TOLERANCE if enough(results, row, ours) else None
    return settle(results, claim, rule, measured, held)


def _order(results: Results) -> Verdict:
    claim = "The test error falls from 20 to 32, 44 and 56 layers."
    rule = (
        "the mean after the last epoch falls at each of the three steps, which is one order of 24; it does not hold "
        f"where one rises by {WELCH}; undecided in between, {OPEN}"
    )
    names = [_name(layers) for layers in _DEEPER]
    rows = results.finished(*names)
    if len(rows) < len(names):
        return Verdict(claim, rule)
    ours, held = [errors(row, _LAST) for row in rows], None
    if all(enough(results, row, shares) for row, shares in zip(rows, ours, strict=True)):
        pairs = zip(ours[:-1], ours[1:], strict=True)
        steps = [step for fewer, more in pairs if (step := Difference.of(more, fewer))]
        if all(step.value < 0 for step in steps):
            held = True
        elif any(step.positive for step in steps):
            held = False
    return settle(results, claim, rule, ", ".join(error_cell(row, _LAST) for row in rows), held)
