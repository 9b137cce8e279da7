"""AlexNet on CIFAR-10 with and without dropout, augmentation and local response normalisation."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnlab.data import DatasetError
from cnnlab.data.splitting import stratified_choice
from cnnlab.evaluation import evaluate
from cnnlab.experiment import load
from cnnlab.experiment.requests import load_recorded
from cnnlab.training import CheckpointError, Recipe, RunFolder, RunFolderError

from .cells import percent, spread
from .comparison import Difference, judge_higher
from .drawing import plot_curves, plot_dots
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
        "curves": "Error by epoch: on held-out images (solid), and on training images as they are trained on, with "
        "dropout and augmentation (dotted)",
    }

    def rows(self, results: Results) -> Sequence[Row]:
        """Return five rows: with all three parts, without each, without any."""
        return [_quick(row) for row in _ROWS] if results.quick else list(_ROWS)

    def measure(self, results: Results, folders: Mapping[str, Sequence[Path]]) -> dict[str, Any]:
        """Return accuracies on training images, without dropout and augmentation.

        Returns:
            `train_accuracy`: for each row a list of `seed`, `train_seconds` (to know the run by) and `accuracy`.
        """
        known, found = results.measured.get("train_accuracy", {}), {}
        for row in results.finished():
            before = {(entry["seed"], entry["train_seconds"]): entry for entry in known.get(row.row, ())}
            there = {path.name: path for path in folders.get(row.row, ())}
            entries = []
            for run in row.runs:
                key, folder = (run["seed"], run["train_seconds"]), there.get(f"seed-{run['seed']}")
                accuracy = before[key]["accuracy"] if key in before else _on_training_images(run, folder)
                if accuracy is not None:
                    entries.append({"seed": key[0], "train_seconds": key[1], "accuracy": accuracy})
            if entries:
                found[row.row] = entries
        return {"train_accuracy": found} if found else {}

    def table(self, results: Results) -> Table:
        """Return a line per row: accuracies on test and training images, the gap, the difference to `all`."""
        head = ("row", "what it is", "test accuracy (n)", "to `all`, points", "on training images", "gap, points")
        return head, [_line(row, results) for row in results.rows.values()]

    def verdicts(self, results: Results) -> Sequence[Verdict]:
        """Judge what each part adds, and whether dropout and augmentation narrow the gap."""
        verdicts = []
        for claim, name in _ADDS:
            both, without = _pair(results, name)
            values = both.values("test_accuracy"), without.values("test_accuracy")
            began = bool(both.runs and without.runs)
            rule = "the test accuracy with it is higher"
            verdicts.append(judge_higher(claim, rule, *values, quick=results.quick, began=began))
        for claim, name in _OVERFITS:
            both, without = _pair(results, name)
            values = _gaps(without, results), _gaps(both, results)
            began = bool(both.runs and without.runs)
            rule = "the gap without it is wider"
            verdicts.append(judge_higher(claim, rule, *values, quick=results.quick, began=began))
        return verdicts

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
        curves = [("accuracy", "-"), ("train_accuracy", ":")]
        return {
            "accuracies": plot_dots(rows, "test_accuracy", label),
            "curves": plot_curves(results, panels, curves, "error, %"),
        }


def _quick(row: Row) -> Row:
    return replace(row, recipe=row.recipe.replace(**_QUICK), seeds=1, data="cifar10?train=2000&test=2000")


def _on_training_images(run: Mapping[str, Any], folder: Path | None) -> float | None:
    """Return the accuracy of a run's best network on images it was trained on; None where it cannot be known."""
    if folder is None or run["diverged"]:
        return None
    try:
        record = RunFolder.open(folder).read_json("recipe.json")
        dataset = load_recorded(folder, record, None, download=False, progress=False)
        train, _ = dataset.hold_out(record["dataset"]["held_out_images"])
        if len(train) > _EVALUATED:
            train = train.take(stratified_choice(train.labels, _EVALUATED))
        return evaluate(load(folder), train).accuracy
    except (CheckpointError, DatasetError, RunFolderError) as error:
        warnings.warn(f"The accuracy on training images of {folder} is left out: {error}", stacklevel=2)
        return None


def _pair(results: Results, name: str) -> list[RowResults]:
    """Return `all` and the row of that name, without runs where they are not there."""
    return [results.rows.get(which) or RowResults(which, "") for which in (_ALL, name)]


def _gaps(row: RowResults, results: Results) -> list[float]:
    """Return by how much a network is better on its training images than on test images, for each run."""
    known = {entry["seed"]: entry["accuracy"] for entry in results.measured.get("train_accuracy", {}).get(row.row, ())}
    tested = {run["seed"]: run["test_accuracy"] for run in row.runs if run["test_accuracy"] is not None}
    return [known[seed] - accuracy for seed, accuracy in tested.items() if seed in known]


def _line(row: RowResults, results: Results) -> list[str]:
    tested, gaps = row.values("test_accuracy"), _gaps(row, results)
    trained = [entry["accuracy"] for entry in results.measured.get("train_accuracy", {}).get(row.row, ())]
    base = results.rows.get(_ALL)
    difference = None
    if base is not None and row is not base:
        difference = Difference.of(tested, base.values("test_accuracy"), quick=results.quick)
    points = spread([100 * gap for gap in gaps], 2)
    return [row.row, row.what, percent(tested), str(difference or "-"), percent(trained), points]
