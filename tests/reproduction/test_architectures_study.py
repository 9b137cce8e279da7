"""Architectures under one budget: the rows, what they cost, the rule, and a map whose names can be read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import pytest
from matplotlib.text import Text

from cnnlab.models import list_models, model_info
from cnnlab.reproduction import Results
from cnnlab.reproduction.architectures import Architectures
from tests.reproduction.small_study import made_up_row

STUDY = Architectures()
Accuracies = Mapping[str, Sequence[float | None]]

# Parameters as the papers and docs/models.md have them, ten classes; of VGG-BN the convolutions with biases, scale and
# bias of each norm, and a dense layer of 512 x 10. Wide ResNets as in the tables of mmclassification.
PARAMETERS = {
    "mlp": 1_841_162,
    "lenet": 264_806,
    "convnet4": 89_578,
    "alexnet_cifar": 3_172_554,
    "vgg11_bn": 9_220_480 + 2 * 2752 + 5130,
    "vgg16_bn": 14_714_688 + 2 * 4224 + 5130,
    **{f"plain{20 + 12 * i}": 269_722 + 2 * 97_216 * i for i in range(4)},
    **{f"resnet{20 + 12 * i}": 269_722 + 2 * 97_216 * i for i in range(4)},
    "resnet110": 269_722 + 15 * 97_216,
    "resnet18": 11_173_962,
    "resnet34": 21_282_122,
    "cifarnet": 1_971_640,
}
# Roughly what thirty epochs give, and seconds, for a map as crowded as a real one.
LIKELY = {
    "mlp": (0.60, 30), "lenet": (0.73, 32), "convnet4": (0.79, 40), "alexnet_cifar": (0.865, 80),
    "vgg11_bn": (0.911, 100), "vgg16_bn": (0.927, 160), "plain20": (0.902, 65), "resnet20": (0.911, 68),
    "plain32": (0.895, 100), "plain44": (0.88, 135), "plain56": (0.86, 165), "resnet32": (0.918, 105),
    "resnet44": (0.922, 140), "resnet56": (0.925, 170), "resnet110": (0.93, 330), "resnet18": (0.941, 230),
    "resnet34": (0.943, 420), "cifarnet": (0.931, 110),
}  # fmt: skip


def made_up(accuracies: Accuracies, seconds: Mapping[str, float] | None = None, **more) -> Results:
    rows = {}
    for name, values in accuracies.items():
        row = made_up_row(name, values, train_seconds=(seconds or {}).get(name, 60.0))
        rows[name] = replace(row, model=name)
    results = Results("architectures", rows=rows, **more)
    return replace(results, measured=json.loads(json.dumps(STUDY.measure(results))))


@pytest.fixture(scope="module")
def likely() -> Results:
    accuracies = {name: [value - 0.003, value, value + 0.004] for name, (value, _) in LIKELY.items()}
    return made_up(accuracies, {name: seconds for name, (_, seconds) in LIKELY.items()})


def test_every_network_gets_the_same_recipe_and_has_the_published_parameters(likely: Results) -> None:
    rows = STUDY.rows(Results("architectures"))
    assert {row.name: row.model for row in rows} == {name: name for name in PARAMETERS}
    small = {name for name in list_models() if model_info(name).input_size < 64}
    assert small <= set(PARAMETERS), "no network for small images is left out"
    assert len({row.recipe for row in rows}) == 1 and rows[0].recipe.held_out == 5000
    costs = likely.measured["costs"]
    assert {name: cost["parameters"] for name, cost in costs.items()} == PARAMETERS
    assert costs["resnet20"]["multiply_adds"] == 40_551_040
    assert 555e6 < costs["resnet18"]["multiply_adds"] < 557e6, "0.56 G with the stem for small images"


def test_the_quick_version_has_one_recipe_too_and_leaves_out_the_large_networks() -> None:
    rows = STUDY.rows(Results("architectures", quick=True))
    assert len({row.recipe for row in rows}) == len({row.data for row in rows}) == 1
    assert {"resnet20", "plain20", "alexnet_cifar", "lenet"} <= {row.name for row in rows} <= set(PARAMETERS)
    assert not {"resnet18", "resnet34", "vgg16_bn"} & {row.name for row in rows}
    assert rows[0].recipe.epochs * 2500 * len(rows) <= 100_000, "images in all"


def test_resnet20_is_judged_against_alexnet_lenet_and_its_plain_twin() -> None:
    def outcomes(**accuracies: Sequence[float | None]) -> list[str]:
        return [verdict.outcome for verdict in STUDY.verdicts(made_up(accuracies))]

    below = {"alexnet_cifar": [0.86, 0.861, 0.862], "lenet": [0.73, 0.735, 0.74], "plain20": [0.90, 0.901, 0.902]}
    assert outcomes(resnet20=[0.91, 0.911, 0.912], **below) == ["holds"] * 3
    assert outcomes(resnet20=[0.80, 0.801], alexnet_cifar=[0.86, 0.861], lenet=[0.79, 0.82]) == [
        "does not hold",
        "undecided",
        "not run",
    ]
    assert outcomes() == ["not run"] * 3


def test_the_table_has_costs_accuracy_seconds_and_hardware() -> None:
    results = made_up({"lenet": [0.72, 0.74], "resnet20": []}, {"lenet": 90.0})
    for run in results.rows["lenet"].runs:
        run["seeds_at_once"] = 3
    head, lines = STUDY.table(results)
    assert lines[0][2:] == ["0.26 M", "0.85 M", "73.00 ± 1.41 % (2)", "30 ± 0", "a processor, 2 threads"]
    assert lines[1][2:] == ["0.27 M", "40.55 M", "not run", "-", "-"]
    assert {len(line) for line in lines} == {len(head)}


@pytest.mark.parametrize("crowded", [False, True])
def test_no_name_on_the_map_lies_on_another_or_outside(likely: Results, crowded: bool) -> None:
    results = likely
    if crowded:  # eight networks that have hardly begun to learn
        names = ["lenet", "plain20", "resnet20", "resnet56", "mlp", "convnet4", "alexnet_cifar", "cifarnet"]
        small = {name: [0.30 + 0.012 * n] for n, name in enumerate(names)}
        results = made_up(small, quick=True)
    figure = STUDY.draw(results)["map"]
    figure.draw_without_rendering()
    assert len(figure.axes) == 3
    for axes in figure.axes:
        # Of the words alone: an annotation's own extent has the line to its marker in it.
        boxes = {text.get_text(): Text.get_window_extent(text) for text in axes.texts}
        assert set(boxes) == set(results.rows)
        overlapping = [(a, b) for a, b in combinations(boxes, 2) if boxes[a].overlaps(boxes[b])]
        assert overlapping == []
        outside = [name for name, box in boxes.items() if box.x0 < axes.bbox.x0 or box.x1 > axes.bbox.x1]
        assert outside == []


def test_the_map_leaves_out_what_has_no_accuracy() -> None:
    (axes, *_) = STUDY.draw(made_up({"lenet": [0.7], "resnet20": [None], "mlp": []}))["map"].axes
    assert [text.get_text() for text in axes.texts] == ["lenet"]
    assert STUDY.draw(made_up({"lenet": [None]})) == {}
