"""Figure 12, measured: the small architectures on CIFAR-10 under one budget."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cnnlab.models import model_info, summarize
from cnnlab.training import Recipe

from .cells import millions, spread
from .comparison import judge_higher
from .errors import row_cell
from .network_map import Point, draw_map
from .results import Results, RowResults, device_of, seconds_of
from .study import Row, Study, Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE = 32

# One recipe for all. Its highest rate is half of what suits a ResNet in batches of 128, and gradients are clipped, for
# the sake of the networks without BatchNorm.
_RECIPE = Recipe(
    name="architectures",
    source="cnnlab; one recipe for all networks, best for none of them",
    result="measured in docs/reproduction.md",
    epochs=30,
    batch_size=128,
    order="shuffled",
    last_batch="drop",
    learning_rate=0.05,
    schedule="one-cycle",
    warmup_epochs=6.0,
    warmup_start=0.04,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    clip_norm=1.0,
    flip="random",
    crop=4,
    standardize=True,
    held_out=5000,
    target_accuracy=2.0,  # never: every network has the whole budget
)

_NETWORKS = {
    "mlp": ("dense", "two hidden dense layers of 512, which know nothing of neighbouring pixels"),
    "lenet": ("older convolutional", "the thesis' network: two convolutions, five dense layers"),
    "convnet4": ("older convolutional", "three convolutions of 5x5, one dense layer"),
    "alexnet_cifar": ("older convolutional", "AlexNet for 32 pixels: five convolutions, three dense layers, dropout"),
    "vgg11_bn": ("VGG", "VGG of eight convolutions with BatchNorm, one dense layer"),
    "vgg16_bn": ("VGG", "VGG of 13 convolutions with BatchNorm, one dense layer"),
    "plain20": ("plain", "19 convolutions with BatchNorm, one dense layer"),
    "plain32": ("plain", "31 convolutions, as narrow as plain20"),
    "plain44": ("plain", "43 convolutions, as narrow as plain20"),
    "plain56": ("plain", "55 convolutions, as narrow as plain20"),
    "resnet20": ("residual", "plain20 with skip connections"),
    "resnet32": ("residual", "plain32 with skip connections"),
    "resnet44": ("residual", "plain44 with skip connections"),
    "resnet56": ("residual", "ResNet of 56 layers, as narrow as resnet20"),
    "resnet110": ("residual", "ResNet of 110 layers, as narrow as resnet20"),
    "resnet18": ("residual", "ResNet of 18 layers, 64 to 512 filters"),
    "resnet34": ("residual", "ResNet of 34 layers, 64 to 512 filters"),
    "cifarnet": ("of the races", "the network of the races, its whitening filters trained like all others"),
}
_QUICK = ("mlp", "lenet", "convnet4", "alexnet_cifar", "plain20", "resnet20", "resnet56", "cifarnet")
_QUICK_RECIPE = _RECIPE.replace(epochs=5, warmup_epochs=1.0, batch_size=32, learning_rate=0.025, held_out=500)
_QUICK_DATA = "cifar10?train=2500&test=2000"

_SMALL = "resnet20"
_BEATEN = {
    "alexnet_cifar": "ResNet-20 beats the 32-pixel AlexNet, which has twelve times as many parameters.",
    "lenet": "ResNet-20 beats the LeNet-style network, which has about as many parameters.",
    "plain20": "ResNet-20 beats plain20, the same network without skip connections.",
}


class Architectures(Study):
    """Accuracy against parameters, multiply-adds and seconds, every network trained alike.

    The figure that counts is the accuracy on the test images, read once, of the epoch that is best on held-out images.
    """

    name = "architectures"
    title = "Figure 12, measured: accuracy by architecture under one budget"
    claim = (
        "A small residual network beats the 32-pixel AlexNet, which has many more parameters, the LeNet-style network, "
        "which has about as many, and its plain twin."
    )
    source = (
        "M. N. Careddu, 'Convolutional Neural Network: studio e applicazione in Julia', chapter 3, figure 12 (accuracy "
        "on CIFAR-10 by model); the 99.2 % that its text names for ResNet-50 are those of a pre-trained network, and "
        "not judged here"
    )
    shortened = (
        "2,500 training images (500 of them held out), 2,000 test images, 5 epochs in batches of 32 at half the rate, "
        "one seed, the eight smaller networks; it shows that all of them learn, not how good they are"
    )
    quick_minutes = 7.0
    full_time = "54 runs, two to three hours on an H100 (an estimate from multiply-adds)"
    figures = {"map": "Test accuracy against parameters, multiply-adds and seconds of training; a bar is a deviation"}

    def rows(self, results: Results) -> Sequence[Row]:
        """Return all networks for small images, VGGs and ResNets in their form for these; quick, eight small ones."""
        rows = [Row(name, what, name, _RECIPE, 3) for name, (_, what) in _NETWORKS.items()]
        if not results.quick:
            return rows
        quick: dict[str, Any] = dict(recipe=_QUICK_RECIPE, seeds=1, data=_QUICK_DATA)
        return [replace(row, **quick) for row in rows if row.name in _QUICK]

    def measure(self, results: Results) -> dict[str, Any]:
        """Return what the networks cost.

        Returns:
            `costs`: of each row `parameters` and `multiply_adds` of an image.
        """
        costs = {name: dict(zip(("parameters", "multiply_adds"), _costs(row.model), strict=True))
                 for name, row in results.rows.items()}  # fmt: skip
        return {"costs": costs}

    def table(self, results: Results) -> Table:
        """Return a line per network: what it costs, its accuracy, seconds and where they were spent."""
        head = (
            "network", "what it is", "parameters", "multiply-adds", "test accuracy (n)", "seconds a run", "trained on"
        )  # fmt: skip
        return head, [_line(row, results) for row in results.rows.values()]

    def verdicts(self, results: Results) -> Sequence[Verdict]:
        """Judge ResNet-20 against two older networks and its plain twin."""
        return [
            judge_higher(results, claim, "test accuracy", (_SMALL, name), lambda row: row.values("test_accuracy"))
            for name, claim in _BEATEN.items()
        ]

    def draw(self, results: Results) -> dict[str, Figure]:
        """Return the map of the networks that have an accuracy."""
        points = []
        for row in results.finished():
            if row.values("test_accuracy") and (costs := results.measured.get("costs", {}).get(row.row)):
                seconds = [seconds_of(run) for run in row.runs]
                where = [costs["parameters"], costs["multiply_adds"], sum(seconds) / len(seconds)]
                accuracies = [100 * value for value in row.values("test_accuracy")]
                points.append(Point(row.row, _NETWORKS[row.row][0], where, accuracies))
        axes = ["parameters", "multiply-adds of an image", "seconds of training a run"]
        return {"map": draw_map(points, axes, "test accuracy, % (axis: logarithm of the error)")} if points else {}


@functools.cache
def _costs(model: str) -> tuple[int, int]:
    info = model_info(model)
    summary = summarize(model, image_size=_SIDE, num_classes=10, **info.small_images)
    return summary.parameters, summary.multiply_adds


def _line(row: RowResults, results: Results) -> list[str]:
    costs = results.measured.get("costs", {}).get(row.row, {})
    sums = [millions(costs[key]) if costs else "-" for key in ("parameters", "multiply_adds")]
    hardware = " and ".join(dict.fromkeys(map(device_of, row.runs))) or "-"
    seconds = spread([seconds_of(run) for run in row.runs], 0)
    return [row.row, row.what, *sums, row_cell(row, row.values("test_accuracy")), seconds, hardware]
