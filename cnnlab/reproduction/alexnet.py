"""AlexNet on CIFAR-10 with and without dropout, augmentation and local response normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnlab.data.splitting import stratified_choice
from cnnlab.evaluation import evaluate
from cnnlab.experiment import load
from cnnlab.experiment.requests import load_recorded
from cnnlab.training import Recipe, RunFolder

from .cells import percent, spread
from .comparison import Difference, judge_higher
from .drawing import plot_curves, plot_dots
from .errors import row_cell
from .results import Results, RowResults
from .study import Row, Study, Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EVALUATED = 10_000  # training images, of all that a run had

_RECIPE = Recipe(
    name="alexnet",
    source="Krizhevsky et al. 2012, section 5, with a fixed schedule in place of cuts by hand; held-out images choose "
    "the epoch",
    result="measured in docs/reproduction.md",
    epochs=60,
    batch_size=128,
    order="shuffled",
    last_batch="drop",
    learning_rate=0.01,
    schedule="step",
    milestones=[30, 45, 55],  # three cuts by ten, as in the paper
    momentum=0.9,
    weight_decay=5e-4,
    flip="random",
    crop=4,  # an eighth of the side, as 224 of 256 pixels
    pca_colour=0.1,
    standardize=True,
    held_out=5000,
    target_accuracy=2.0,  # never: every run has the whole schedule
)
_UNAUGMENTED = _RECIPE.replace(flip="none", crop=0, pca_colour=0.0)
_NO_DROPOUT, _NO_LRN = {"dropout": 0.0}, {"local_response_norm": False}

_ALL = "all"
_ROWS = (
    Row(_ALL, "with dropout, augmentation and response normalisation", "alexnet_cifar", _RECIPE, 3),
    Row("no-dropout", "without dropout", "alexnet_cifar", _RECIPE, 3, _NO_DROPOUT),
    Row("no-augmentation", "without crop, flip and varied colours", "alexnet_cifar", _UNAUGMENTED, 3),
    Row("no-lrn", "without response normalisation", "alexnet_cifar", _RECIPE, 3, _NO_LRN),
    Row("none", "without any of the three", "alexnet_cifar", _UNAUGMENTED, 3, {**_NO_DROPOUT, **_NO_LRN}),
)
_QUICK: dict[str, Any] = dict(epochs=8, milestones=[6, 7], batch_size=32, held_out=200)

_ADDS = (
    ("Dropout raises the accuracy on new images.", "no-dropout"),
    ("Augmentation raises the accuracy on new images.", "no-augmentation"),
    ("Local response normalisation raises the accuracy on new images.", "no-lrn"),
)
_OVERFITS = (
    ("Dropout reduces over-fitting: without it the gap between training and test images is wider.", "no-dropout"),
    ("Augmentation reduces over-fitting: without it that gap is wider.", "no-augmentation"),
)


class AlexNetStudy(Study):
    """What each of three parts of AlexNet adds, by leaving it out.

    The figure that counts is the accuracy on the test images, read once, of the epoch that is best on held-out images.
    How far a network over-fits is told by the same network's accuracy on its own training images, without dropout and
    augmentation: the one that is counted during training has both, and so says little.
    """

    name = "alexnet"
    title = "AlexNet: what dropout, augmentation and response normalisation add"
    claim = "Dropout and augmentation each reduce over-fitting; local response normalisation lowers the error."
    source = (
        "Krizhevsky et al. 2012, sections 3.3, 4.1 and 4.2 (there response normalisation takes the error of another "
        "network on CIFAR-10 from 13 % to 11 %); here the 32-pixel network alexnet_cifar, whose pixels run from 0 to 1 "
        "where the paper's constants of that normalisation were chosen for pixels up to 255"
    )
    shortened = (
        "2,000 training images (200 of them held out), 2,000 test images, 8 epochs in batches of 32, one seed; too "
        "little to see small effects"
    )
    quick_minutes = 7.0
    full_time = "15 runs, about half an hour on an H100 (an estimate from multiply-adds)"
    figures = {
        "accuracies": "Test accuracy by row and seed",
        "curves": "Error by epoch: on held-out images at its end, and on training images as they are trained on, with "
        "dropout and augmentation, at its middle",
    }

    def rows(self, results: Results) -> Sequence[Row]:
        """Return five rows: with all three parts, without each, without any."""
        return [_quick(row) for row in _ROWS] if results.quick else list(_ROWS)

    def inspect(self, folder: Path) -> dict[str, Any]:
        """Return `train_accuracy`: the best network's on images it was trained on, without dropout and augmentation."""
        record = RunFolder.open(folder).read_json("recipe.json")
        dataset = load_recorded(folder, record, None, download=False, progress=False)
        train, _ = dataset.hold_out(record["dataset"]["held_out_images"])
        if len(train) > _EVALUATED:
            train = train.take(stratified_choice(train.labels, _EVALUATED))
        return {"train_accuracy": evaluate(load(folder), train).accuracy}

    def table(self, results: Results) -> Table:
        """Return a line per row: accuracies on test and training images, the gap, the difference to `all`."""
        head = ("row", "what it is", "test accuracy (n)", "to `all`, points", "on training images", "gap, points")
        return head, [_line(row, results) for row in results.rows.values()]

    def verdicts(self, results: Results) -> Sequence[Verdict]:
        """Judge what each part adds, and whether dropout and augmentation narrow the gap."""
        return [
            *(judge_higher(results, claim, "test accuracy", (_ALL, name), _tested) for claim, name in _ADDS),
            *(judge_higher(results, claim, "gap", (name, _ALL), _gaps) for claim, name in _OVERFITS),
        ]

    def draw(self, results: Results) -> dict[str, Figure]:
        """Return the accuracies as dots, and the curves: first what narrows the gap, then the rest."""
        rows = [row for row in results.finished() if row.values("test_accuracy")]
        if not rows:
            return {}
        label = "test accuracy of the best epoch on held-out images, % (a dot per seed, a bar at the mean)"
        panels = [
            ("against over-fitting", [_ALL, "no-dropout", "no-augmentation"]),
            ("response normalisation, and none", [_ALL, "no-lrn", "none"]),
        ]
        curves = [
            ("accuracy", "-", "held-out images"),
            ("train_accuracy", ":", "training images, as trained on"),
        ]
        return {
            "accuracies": plot_dots(rows, "test_accuracy", label),
            "curves": plot_curves(results, panels, curves, "error, %"),
        }


def _quick(row: Row) -> Row:
    return replace(row, recipe=row.recipe.replace(**_QUICK), seeds=1, data="cifar10?train=2000&test=2000")


def _tested(row: RowResults) -> list[float]:
    return row.values("test_accuracy")


def _trained(row: RowResults) -> list[float]:
    return [accuracy for run in row.runs if (accuracy := _on_training_images(run)) is not None]


def _gaps(row: RowResults) -> list[float]:
    """Return by how much a network is better on its training images than on test images, for each run."""
    pairs = [(_on_training_images(run), run["test_accuracy"]) for run in row.runs]
    return [trained - tested for trained, tested in pairs if trained is not None and tested is not None]


def _on_training_images(run: Mapping[str, Any]) -> float | None:
    return run.get("found", {}).get("train_accuracy")


def _line(row: RowResults, results: Results) -> list[str]:
    base = results.rows.get(_ALL)
    difference = None if base is None or row is base else Difference.of(_tested(row), _tested(base))
    points = spread([100 * gap for gap in _gaps(row)], 2)
    tested = row_cell(row, _tested(row))
    return [row.row, row.what, tested, str(difference or "-"), percent(_trained(row)), points]
