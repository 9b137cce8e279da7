"""Degradation: more layers make a plain network worse and a residual one better (He et al. 2015, figure 6)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from .comparison import judge_higher
from .drawing import plot_curves
from .errors import error_cell, errors
from .he_recipe import he_recipe
from .results import Results
from .study import Row, Study, Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PANELS = [("plain", ("plain20", "plain56")), ("residual", ("resnet20", "resnet56"))]
_NETWORKS = {name: f"{title}, {name[-2:]} layers" for title, names in _PANELS for name in names}
_TRAIN, _TEST = "last_train_accuracy", "last_accuracy"
_ERRORS = {_TRAIN: "training error", _TEST: "test error"}
_CLAIMS = (  # claim, the row that has the higher error and the other, which error
    ("A plain network of 56 layers has a higher training error than one of 20.", ("plain56", "plain20"), _TRAIN),
    ("A plain network of 56 layers has a higher test error than one of 20.", ("plain56", "plain20"), _TEST),
    ("A residual network of 56 layers has a lower training error than one of 20.", ("resnet20", "resnet56"), _TRAIN),
    ("A residual network of 56 layers has a lower test error than one of 20.", ("resnet20", "resnet56"), _TEST),
)


class Figure8(Study):
    """Plain and residual networks of 20 and 56 layers, by the paper's recipe (`he_recipe`).

    Training error is counted as the network trains, during the epoch, on augmented images; both errors are those of the
    last epoch.
    """

    name = "figure8"
    title = "Degradation, and its cure"
    claim = (
        "A plain network of 56 layers trains worse than one of 20; a residual network of 56 does better than one of 20."
    )
    source = "thesis, figure 8; He et al. 2015, section 4.2, figure 6"
    shortened = (
        "2,000 training and 1,000 test images, 6 epochs, batches of 32 at a quarter of the rate, one seed; enough to "
        "see that it runs, not to judge"
    )
    quick_minutes = 7
    full_time = "1 to 3 hours on one NVIDIA H100, by the multiply-adds; not measured"
    caveat = (
        "the rate is divided by ten after half and after three quarters of the epochs, as in full; after so few, a "
        "difference tells as much of how fast a network begins to learn as of how well it can"
    )
    figures: ClassVar[Mapping[str, str]] = {
        "curves": "Errors by epoch, a line per seed: plain networks on the left, residual ones on the right. "
        "Training errors are counted during an epoch and stand at its middle."
    }

    def rows(self, results: Results) -> list[Row]:
        recipe, data, seeds = he_recipe(), "cifar10", 3
        if results.quick:
            recipe, data, seeds = he_recipe(quick_epochs=6), "cifar10?train=2000&test=1000", 1
        return [Row(name, what, name, recipe, seeds, data=data) for name, what in _NETWORKS.items()]

    def table(self, results: Results) -> Table:
        head = ("network", "training error, last epoch (runs)", "test error, last epoch", "test error, best epoch")
        lines = []
        for name, what in _NETWORKS.items():
            row = results.rows.get(name)
            lines.append((what, *(error_cell(row, key) for key in (_TRAIN, _TEST, "test_accuracy"))))
        return head, lines

    def verdicts(self, results: Results) -> list[Verdict]:
        return [
            judge_higher(results, claim, f"{_ERRORS[key]} of the last epoch", rows, partial(errors, key=key))
            for claim, rows, key in _CLAIMS
        ]

    def draw(self, results: Results) -> dict[str, Figure]:
        if not results.finished(*_NETWORKS):
            return {}
        kinds = [("accuracy", "-", "test"), ("train_accuracy", "--", "training, during the epoch")]
        return {"curves": plot_curves(results, _PANELS, kinds, "error, %")}
