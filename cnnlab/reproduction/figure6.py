"""A network of four layers learns faster with ReLU than with tanh (Krizhevsky et al. 2012, figure 1)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from cnnlab.report.style import BLUE, SOFT, VERMILION, drawing_style, new_figure
from cnnlab.training import Recipe

from .cells import percent, spread
from .comparison import OPEN, WELCH, Difference, enough, settle
from .drawing import draw_errors
from .rate_sweep import Sweep, epochs_to, sweep
from .results import Results, RowResults
from .study import Row, Study, Table, Verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ACTIVATIONS = {"relu": "ReLU", "tanh": "tanh"}
_COLORS = {"relu": BLUE, "tanh": VERMILION}
_TARGET = 0.75  # accuracy on the training images: 25 % error
_TIMES = 3.0  # at least so many times faster counts as "several times"
_START = 0.01  # of the sweeps; at 0.03 the network with ReLU may not learn, and such a run takes all epochs
_CHOSE = "seed 0, which chose the rate"
_SEEDS = 4  # of the fastest rate; the first one, which has chosen it, is not judged

_RECIPE = Recipe(
    name="figure6",
    source="A. Krizhevsky et al. 2012, figure 1: rates chosen for each network, no regularisation of any kind",
    epochs=60,
    batch_size=128,
    order="shuffled",
    schedule="constant",
    momentum=0.9,
    standardize=True,
    target_accuracy=2.0,
    target_train_accuracy=_TARGET,
)
# With batches of 32 a small set makes enough updates in an epoch to be learnt in few.
_QUICK = _RECIPE.replace(name="figure6-quick", epochs=30, batch_size=32)


class Figure6(Study):
    """Epochs to 25 % training error with ReLU and with tanh, each at the rate that is fastest for it.

    The paper gives neither the network's widths nor rates or batch size. Ours is `convnet4`, the nearest that its
    author has published, with batches of 128 and momentum 0.9. Images are standardised by the mean and standard
    deviation of each channel, where the paper subtracts the mean of each pixel; weights start by the rule that suits
    the activation (He normal, Glorot uniform). There is no augmentation, weight decay or dropout, and the rate is
    constant. For each activation a sweep (`cnnlab.reproduction.rate_sweep`) with seed 0 finds the fastest rate; that
    row then gets three further seeds, and these are judged. Training error is counted as the network trains, during
    the epoch.
    """

    name = "figure6"
    title = "ReLU against tanh"
    claim = (
        "A network of four layers reaches 25 % training error on CIFAR-10 several times (six, in the paper's figure) "
        "faster, in epochs, with ReLU than with tanh."
    )
    source = "thesis, figure 6; Krizhevsky et al. 2012, figure 1"
    shortened = "2,500 training and 1,000 test images, batches of 32, one seed, at most 30 epochs"
    quick_minutes = 7
    full_time = "about 70 minutes on two CPU cores with --workers 2"
    figures: ClassVar[Mapping[str, str]] = {
        "curves": "Training error at the fastest rate of each activation; counted during an epoch, it stands at its "
        "middle. Dashed is a seed 0 that does not count, since it chose the rate.",
        "sweep": "Epochs to 25 % training error by learning rate, the line through the means. An open circle is a seed "
        "0 that does not count, since it chose the rate; an open triangle is a run that had not got to 25 % when it "
        "ended, a cross at the top one that diverged.",
    }

    def rows(self, results: Results) -> list[Row]:
        return [row for activation in _ACTIVATIONS for row in _rows(results, activation)]

    def table(self, results: Results) -> Table:
        lines = []
        for activation, name in _ACTIVATIONS.items():
            fastest = _sweep(results, activation)
            for row in sorted(_rows(results, activation), key=lambda row: row.recipe.learning_rate):
                found = _found(results, row.name).runs
                runs = _judged(found)
                mark = "fastest" if fastest.over and row.recipe.learning_rate == fastest.best else ""
                if apart := _apart(found):
                    mark += f"; seed 0, which chose it, apart: {_epochs_cell(apart)}"
                accuracy = percent([run["last_accuracy"] for run in runs if run["last_accuracy"] is not None])
                lines.append((name, f"{row.recipe.learning_rate:g}", _epochs_cell(runs), mark, accuracy))
        return ("activation", "rate", "epochs to 25 % training error (runs)", "", "test accuracy at the end"), lines

    def verdicts(self, results: Results) -> list[Verdict]:
        claim = "ReLU takes several times fewer epochs to 25 % training error than tanh (paper: six times)."
        rule = (
            f"the mean number of epochs with tanh is above {_TIMES:g} times that with ReLU, each at its fastest rate, "
            f"by {WELCH}; it does not hold where it is below by that test; the seed that chose the rates does not "
            "count; tanh that does not get there counts the epochs it had, and then the claim cannot fail; undecided "
            "in between, where a fastest rate is the first or last of the grid, where ReLU does not get there, "
            f"{OPEN}"
        )
        sweeps = {activation: _sweep(results, activation) for activation in _ACTIVATIONS}
        if not all(found.over for found in sweeps.values()):
            return [Verdict(claim, rule)]
        fastest = {a: _found(results, _row_name(a, sweeps[a].best)) for a in _ACTIVATIONS}
        runs = {activation: _judged(row.runs) for activation, row in fastest.items()}
        measured = "; ".join(
            f"{name} at {sweeps[a].best:g}: {_epochs_cell(runs[a])}" for a, name in _ACTIVATIONS.items()
        )
        if not sweeps["relu"].reached or _bounded(runs["relu"]):
            return [settle(results, claim, rule, measured, None)]
        relu, tanh = (list(map(_at_least, runs[activation])) for activation in ("relu", "tanh"))
        ratio, bounded = statistics.fmean(tanh) / statistics.fmean(relu), _bounded(runs["tanh"])
        measured = f"{'more than ' if bounded else ''}{ratio:.1f} times; epochs: {measured}"
        difference, held = Difference.of(tanh, [_TIMES * epochs for epochs in relu]), None
        if difference is not None and difference.p is not None:
            measured += f"; against {_TIMES:g} times{difference.chance}"
            if all(_can_tell(results, fastest[a], sweeps[a]) for a in _ACTIVATIONS):
                held = difference.positive or (None if bounded else difference.positive)
        return [settle(results, claim, rule, measured, held)]

    def draw(self, results: Results) -> dict[str, Figure]:
        if all(_sweep(results, activation).best is None for activation in _ACTIVATIONS):
            return {}
        return {"curves": _plot_curves(results), "sweep": _plot_sweep(results)}


def _rows(results: Results, activation: str) -> list[Row]:
    """The rows of an activation, in the order in which they are tried; the fastest has its seeds at the end."""
    recipe, data = (_QUICK, "cifar10?train=2500&test=1000") if results.quick else (_RECIPE, "cifar10")
    found = _sweep(results, activation)
    rows = []
    for rate, cap in found.caps.items():
        rows.append(
            Row(
                _row_name(activation, rate),
                f"{_ACTIVATIONS[activation]}, rate {rate:g}",
                "convnet4",
                recipe.replace(learning_rate=rate, epochs=cap),
                _seeds(results, found) if rate == found.best else 1,
                {"activation": activation},
                data,
            )
        )
    return rows


def _sweep(results: Results, activation: str) -> Sweep:
    """The sweep of an activation, by seed 0 of each of its rows."""

    def run_at(rate: float) -> dict[str, Any] | None:
        return next((run for run in _found(results, _row_name(activation, rate)).runs if run["seed"] == 0), None)

    most = (_QUICK if results.quick else _RECIPE).epochs
    return sweep(run_at, _TARGET, start=_START, most_epochs=most)


def _seeds(results: Results, found: Sweep) -> int:
    """How many runs the fastest rate is to have."""
    return _SEEDS if found.over and not results.quick else 1


def _row_name(activation: str, rate: float | None) -> str:
    return f"{activation}-{rate:g}"


def _found(results: Results, name: str) -> RowResults:
    return results.rows.get(name) or RowResults(name, "")


def _epochs(run: Mapping[str, Any]) -> float | None:
    return None if run["diverged"] else epochs_to(_TARGET, run["history"]["train_accuracy"])


def _at_least(run: Mapping[str, Any]) -> float:
    """The epochs of a run that got there, and those it had of one that did not."""
    epochs = _epochs(run)
    return run["epochs"] - 0.5 if epochs is None else epochs


def _judged(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs that did not choose a rate, if there are any."""
    return [run for run in runs if run["seed"] > 0] or [*runs]


def _apart(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The others: what chose the rate, where there are runs that did not."""
    return [run for run in runs if run["seed"] == 0 and len(runs) > 1]


def _can_tell(results: Results, row: RowResults, found: Sweep) -> bool:
    """Whether every seed of the fastest rate is there, none has diverged, and slower rates lie on both sides."""
    accuracies = [run["last_train_accuracy"] for run in row.runs if not run["diverged"]]
    return enough(results, row, accuracies) and not found.at_an_end


def _epochs_cell(runs: Sequence[Mapping[str, Any]]) -> str:
    """Write `8.12 ± 0.20 (3)`, and what became of the runs that did not get there."""
    if not runs:
        return "not run"
    reached = [epochs for run in runs if (epochs := _epochs(run)) is not None]
    parts = [f"{spread(reached, 2)} ({len(reached)})"] if reached else []
    for run in runs:
        if run["diverged"]:
            parts.append(f"diverged in epoch {run['epochs']}")
        elif _epochs(run) is None:
            parts.append(f"not within {run['epochs']} epochs")
    return ", ".join(parts)


def _bounded(runs: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a run did not get there, so that the mean is only bounded from below."""
    return any(_epochs(run) is None for run in runs)


def _plot_curves(results: Results) -> Figure:
    with drawing_style():
        figure = new_figure(5.4, 3.9)
        axes = figure.add_subplot()
        for activation, name in _ACTIVATIONS.items():
            rate = _sweep(results, activation).best
            if rate is None:
                continue
            runs = _found(results, _row_name(activation, rate)).runs
            for those, style, what in ((_judged(runs), "-", f"rate {rate:g}"), (_apart(runs), "--", _CHOSE)):
                for number, run in enumerate(those):
                    label = f"{name}, {what}" if number == 0 else None
                    look: dict[str, Any] = {"color": _COLORS[activation], "linestyle": style, "label": label}
                    draw_errors(axes, "train_accuracy", run["history"]["train_accuracy"], **look)
        axes.axhline(100 * (1 - _TARGET), color=SOFT, linewidth=1.0, linestyle=":", label="25 %")
        axes.set_title("At the fastest rate of each activation")
        axes.set_xlabel("epoch")
        axes.set_ylabel("training error during the epoch, %")
        axes.set_xlim(left=0)
        axes.grid(axis="y")
        axes.legend(loc="best")
        return figure


def _plot_sweep(results: Results) -> Figure:
    with drawing_style():
        figure = new_figure(5.4, 3.9)
        axes = figure.add_subplot()
        for activation, name in _ACTIVATIONS.items():
            _draw_sweep(axes, results, activation, name)
        rates = sorted({rate for activation in _ACTIVATIONS for rate in _sweep(results, activation).caps})
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("learning rate")
        axes.set_ylabel("epochs to 25 % training error")
        axes.grid(axis="y")
        axes.legend(loc="best")
        return figure


def _draw_sweep(axes: Axes, results: Results, activation: str, name: str) -> None:
    color, line, apart = _COLORS[activation], [], []
    for rate in sorted(_sweep(results, activation).caps):
        runs = _found(results, _row_name(activation, rate)).runs
        reached = [epochs for run in _judged(runs) if (epochs := _epochs(run)) is not None]
        axes.plot([rate] * len(reached), reached, "o", color=color, alpha=0.6)
        if reached:
            line.append((rate, statistics.fmean(reached)))
        apart += [(rate, epochs) for run in _apart(runs) if (epochs := _epochs(run)) is not None]
        for run in runs:
            if run["diverged"]:
                axes.plot([rate], [0.98], "x", color=color, transform=axes.get_xaxis_transform())
            elif _epochs(run) is None:
                axes.plot([rate], [run["epochs"]], "^", color=color, markerfacecolor="none")
    axes.plot([rate for rate, _ in line], [mean for _, mean in line], ".-", color=color, label=name)
    if apart:  # larger, so that it shows around a dot
        look: dict[str, Any] = {"color": color, "markerfacecolor": "none", "markersize": 9}
        axes.plot([rate for rate, _ in apart], [epochs for _, epochs in apart], "o", label=f"{name}, {_CHOSE}", **look)
