"""The thesis' experiment: 65 % on CIFAR-10 with a LeNet-style network, one named change at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnnlab.report import plot_learning_curves
from cnnlab.training import Recipe, get_recipe

from .cells import spread
from .comparison import OPEN, Difference, allowed, enough, judge_higher, judged_cell, later_seeds, settle
from .drawing import plot_dots
from .errors import row_cell
from .results import Results, RowResults
from .study import Row, Study, Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CLAIMED = 0.65
_READINGS = {
    "literal": "The literal reading of the network reaches 65 %.",
    "flatten": "The reading of 400 as the flattened map reaches 65 %.",
}
_SEEN = {"literal": 5, "flatten": 5, "modern": 3}  # seeds, when the rules were written
_LIMIT = "The recipe was the limit: the same network, trained as one would today, does better."

_THESIS, _HELD_OUT, _MODERN = (get_recipe(name) for name in ("thesis", "thesis-held-out", "lenet-modern"))
_QUICK_DATA = "cifar10?train=10000&test=2000"
_QUICK_EPOCHS = 20


def _row(name: str, what: str, recipe: Recipe = _THESIS, *, seeds: int = 3, **options: Any) -> Row:
    return Row(name, what, "lenet", recipe, seeds, options, seen=_SEEN.get(name, 0))


_FLATTENED = [120, 256, 84]
_ROWS = (
    _row("literal", "four hidden layers 400-120-256-84, the thesis' recipe to the letter", seeds=10),
    _row("flatten", "400 read as the flattened map: hidden layers 120-256-84", seeds=10, hidden=_FLATTENED),
    _row("no-noise", "without the noise on training images", _THESIS.replace(noise=0.0)),
    _row("literal-held-out", "literal, steered by 5,000 training images", _HELD_OUT, seeds=5),
    _row("shuffled", "new random batches every epoch", _THESIS.replace(order="shuffled")),
    _row("modern", "the same network, trained as one would today", _MODERN, seeds=8),
    _row("permuted", "fixed batches in another order", _THESIS.replace(order="permuted")),
    _row("lecun-normal", "initial weights LeCun normal instead of Glorot uniform", init="lecun_normal"),
    _row("softmax-twice", "softmax in the network and again in the loss", softmax_output=True),
    _row("filters-12-32", "12 and 32 filters instead of 6 and 16", filters=[12, 32]),
    _row("flatten-held-out", "flatten, steered by 5,000 training images", _HELD_OUT, hidden=_FLATTENED),
)
_QUICK = ("literal", "flatten", "shuffled", "modern")


class Thesis(Study):
    """Both readings of the network, the honest protocol, and what moves the figure."""

    name = "thesis"
    title = "The thesis: 65 % with a LeNet-style network"
    claim = "A LeNet-style network reaches an accuracy of 65 % on CIFAR-10 with one hundred epochs."
    source = "M. N. Careddu, 'Convolutional Neural Network: studio e applicazione in Julia', chapter 3"
    shortened = (
        f"10,000 training and 2,000 test images, {_QUICK_EPOCHS} epochs, two seeds, four of the rows "
        "(`modern` holds 1,000 of its images out); too little to judge the 65 %"
    )
    quick_minutes = 5.0
    full_time = "54 runs, 11 hours on one CPU core"
    figures = {
        "accuracies": "Accuracy by row and seed",
        "literal-curves": "Learning curves of the literal reading",
        "modern-curves": "Learning curves of the same network with the recipe lenet-modern",
    }

    def rows(self, results: Results) -> Sequence[Row]:
        """Return eleven rows; quick, the four that show most."""
        return [_quick(row) for row in _ROWS if row.name in _QUICK] if results.quick else list(_ROWS)

    def table(self, results: Results) -> Table:
        """Return a line per row: accuracy, difference to the literal reading, best epochs, loss, verdict."""
        head = (
            "row",
            "what differs",
            "test accuracy (n)",
            "to literal, Welch's p",
            "best epoch",
            "training loss",
            "65 %",
        )
        return head, [_line(row, results) for row in results.rows.values()]

    def verdicts(self, results: Results) -> Sequence[Verdict]:
        """Judge the 65 % for both readings, and whether the recipe was the limit."""
        verdicts = []
        for name, claim in _READINGS.items():
            rule = (
                f"65 % lies within two standard deviations of the mean{later_seeds(results, _SEEN[name])} or below it; "
                f"undecided {OPEN}"
            )
            if rows := results.finished(name):
                measured = judged_cell(rows[0], _tested)
                verdicts.append(settle(results, claim, rule, measured, _reached(results, rows[0])))
            else:
                verdicts.append(Verdict(claim, rule))
        seeds = later_seeds(results, f"{_SEEN['modern']} (`modern`) and {_SEEN['literal']} (`literal`)")
        judge = judge_higher(results, _LIMIT, "test accuracy", ("modern", "literal"), _tested, seeds)
        return [*verdicts, judge]

    def draw(self, results: Results) -> dict[str, Figure]:
        """Return the accuracies as dots, and learning curves of the runs that have kept them."""
        figures = {}
        if rows := [row for row in results.finished() if row.values("test_accuracy")]:
            label = "test accuracy at the best epoch, % (a dot per seed, a bar at the mean)"
            claims = {"claim: 65 %": 100 * _CLAIMED}
            figures["accuracies"] = plot_dots(rows, "test_accuracy", label, claims=claims)
        for row in results.finished("literal", "modern"):
            if histories := _histories(row):
                figures[f"{row.row}-curves"] = plot_learning_curves(histories)
        return figures


def _quick(row: Row) -> Row:
    recipe = row.in_epochs(_QUICK_EPOCHS).recipe
    if recipe.held_out:
        recipe = recipe.replace(held_out=1000)
    return replace(row, recipe=recipe, seeds=2, seen=0, data=_QUICK_DATA)


def _tested(row: RowResults) -> list[float]:
    return row.values("test_accuracy")


def _reached(results: Results, row: RowResults) -> bool | None:
    """Whether 65 % lies within two standard deviations of the mean, or below it; None where that cannot be told."""
    sd = row.judged.sd("test_accuracy")
    if sd is None or not enough(results, row, _tested(row)):
        return None
    return row.judged.mean("test_accuracy") + 2 * sd >= _CLAIMED


def _line(row: RowResults, results: Results) -> list[str]:
    literal = results.rows.get("literal")
    difference = None if literal is None or row is literal else Difference.of(_tested(row), _tested(literal))
    best = " ".join(f"{epoch:.0f}" for epoch in row.values("best_epoch")) or "-"
    loss = spread(row.values("last_train_loss"), 2)
    words = {True: "reached", False: "not reached", None: "undecided"}
    verdict = words[allowed(results, _reached(results, row))] if row.runs else "not run"
    told = "-" if difference is None else f"{difference}{difference.chance}"
    return [row.row, row.what, row_cell(row, _tested(row)), told, best, loss, verdict]


def _histories(row: RowResults) -> list[list[dict[str, Any]]]:
    """Return the curves that the runs have kept, a record per epoch."""
    monitor = "validation" if (row.recipe or {}).get("held_out") else "test"
    histories = []
    for run in row.runs:
        if curves := run.get("history"):
            epochs = enumerate(zip(*curves.values(), strict=True), 1)
            histories.append(
                [{"epoch": n, "monitor": monitor, **dict(zip(curves, values, strict=True))} for n, values in epochs]
            )
    return histories
