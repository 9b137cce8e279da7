"""Figure 10: what is counted in the three networks, how it is judged, and how it is drawn."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from cnnlab.reproduction import Results
from cnnlab.reproduction.figure10 import Figure10

STUDY = Figure10()


@pytest.fixture(scope="module")
def results() -> Results:
    """What was measured, as it comes back from a file."""
    return Results("figure10", measured=json.loads(json.dumps(STUDY.measure(Results("figure10")))))


def conv(side: int, kernel: int, inputs: int, filters: int) -> int:
    return side * side * kernel * kernel * inputs * filters


def plain34_by_hand() -> int:
    total, inputs, side = conv(112, 7, 3, 64), 64, 56
    for stage, blocks in enumerate((3, 4, 6, 3)):
        filters, side = 64 << stage, 56 >> stage
        total += conv(side, 3, inputs, filters) + (2 * blocks - 1) * conv(side, 3, filters, filters)
        inputs = filters
    return total + 512 * 1000


def vgg19_by_hand() -> int:
    total, inputs = 0, 3
    for stage, depth in enumerate((2, 2, 4, 4, 4)):
        filters, side = min(64 << stage, 512), 224 >> stage
        total += conv(side, 3, inputs, filters) + (depth - 1) * conv(side, 3, filters, filters)
        inputs = filters
    return total + 25_088 * 4096 + 4096 * 4096 + 4096 * 1000


PROJECTIONS = conv(28, 1, 64, 128) + conv(14, 1, 128, 256) + conv(7, 1, 256, 512)
PROJECTION_PARAMETERS = 64 * 128 + 128 * 256 + 256 * 512 + 2 * (128 + 256 + 512)


def test_the_networks_have_the_sums_that_one_counts_by_hand(results: Results) -> None:
    networks = results.measured["networks"]
    found = {name: (n["weighted_layers"], n["parameters"], n["multiply_adds"]) for name, n in networks.items()}
    assert found == {
        "vgg19": (19, 143_667_240, vgg19_by_hand()),
        "plain34": (34, 21_797_672 - PROJECTION_PARAMETERS, plain34_by_hand()),
        "resnet34": (34, 21_797_672, plain34_by_hand() + PROJECTIONS),
    }
    drawn = {name: sum(layer["multiply_adds"] for layer in n["layers"]) for name, n in networks.items()}
    assert drawn == {"vgg19": vgg19_by_hand(), "plain34": plain34_by_hand(), "resnet34": plain34_by_hand()}


def test_layers_and_skip_connections_are_those_of_the_paper(results: Results) -> None:
    networks = results.measured["networks"]
    shapes = {name: [(layer["kind"], layer["width"], layer["side"]) for layer in n["layers"]]
              for name, n in networks.items()}  # fmt: skip
    assert shapes["plain34"] == shapes["resnet34"]
    blocks = [("conv", 64 << stage, 56 >> stage) for stage, n in enumerate((3, 4, 6, 3)) for _ in range(2 * n)]
    assert shapes["resnet34"] == [
        ("conv", 64, 112), ("pool", 64, 56), *blocks, ("mean", 512, 1), ("dense", 1000, 1),
    ]  # fmt: skip
    kinds = "".join(kind[0] for kind, _, _ in shapes["vgg19"])
    assert kinds == "ccp" + "ccp" + "ccccp" * 3 + "ddd"
    assert [(kind, side) for kind, _, side in shapes["vgg19"] if kind == "pool"][-1] == ("pool", 7)
    skips = networks["resnet34"]["skips"]
    assert [(skip["from"], skip["to"]) for skip in skips] == [(1 + 2 * n, 3 + 2 * n) for n in range(16)]
    assert [n for n, skip in enumerate(skips) if skip["changes"]] == [3, 7, 13]
    assert networks["vgg19"]["skips"] == networks["plain34"]["skips"] == []
    strided = [layer["width"] for layer in networks["plain34"]["layers"] if layer.get("stride", 1) == 2]
    assert strided == [64, 128, 256, 512]


def test_all_claims_hold_and_say_what_was_counted(results: Results) -> None:
    verdicts = STUDY.verdicts(results)
    assert [verdict.outcome for verdict in verdicts] == ["holds"] * 4
    assert verdicts[1].measured == "VGG-19 143,667,240, 34-layer residual 21,797,672"
    assert verdicts[2].measured == "VGG-19 19.63 G, 34-layer plain 3.64 G, 34-layer residual 3.66 G"
    assert verdicts[3].measured == "34-layer plain 18.6 %, 34-layer residual 18.7 %"
    verdicts = STUDY.verdicts(Results("figure10"))
    assert [verdict.outcome for verdict in verdicts] == ["not run"] * 4
    assert [verdict.afterwards for verdict in verdicts] == [False, False, True, True]


@pytest.mark.parametrize(
    ("network", "key", "value", "fails"),
    [
        ("plain34", "weighted_layers", 37, [0]),
        ("resnet34", "parameters", 21_797_673, [1]),
        ("resnet34", "multiply_adds", 3_673_000_000, [2]),
        ("plain34", "multiply_adds", 3_750_000_000, [2, 3]),
    ],
)
def test_a_claim_fails_beyond_its_tolerance(results: Results, network: str, key: str, value: int, fails) -> None:
    networks = results.measured["networks"]
    changed = replace(results, measured={"networks": {**networks, network: {**networks[network], key: value}}})
    outcomes = [verdict.outcome for verdict in STUDY.verdicts(changed)]
    assert [place for place, outcome in enumerate(outcomes) if outcome == "does not hold"] == fails


def test_the_table_sets_what_is_published_beside_what_was_counted(results: Results) -> None:
    head, lines = STUDY.table(results)
    assert lines == [
        ["VGG-19", "19 (19)", "19,632,062,464 (19.60 G)", "100.0 %", "143,667,240 (143,667,240)"],
        ["34-layer plain", "34 (34)", "3,644,493,824 (3.60 G)", "18.6 %", "21,623,848 (-)"],
        ["34-layer residual", "34 (34)", "3,663,761,408 (3.60 G)", "18.7 %", "21,797,672 (21,797,672)"],
    ]
    assert all(len(line) == len(head) for line in lines)
    assert STUDY.table(Results("figure10"))[1] == []


def test_the_picture_has_every_layer_and_every_skip_connection(results: Results) -> None:
    from matplotlib.patches import FancyArrowPatch

    figures = STUDY.draw(results)
    assert set(figures) == set(STUDY.figures)
    (axes,) = figures["networks"].axes
    words = Counter(text.get_text() for text in axes.texts)
    assert words["3×3 conv, 64"] == 2 + 6 + 6
    assert words["7×7 conv, 64, /2"] == words["mean of the map"] == 2
    assert words["3×3 conv, 512, /2"] == 2
    assert words["max pool, /2"] == 5 + 1 + 1
    assert words["dense 4,096"] == 2
    arcs = [patch for patch in axes.patches if isinstance(patch, FancyArrowPatch)]
    assert Counter(arc.get_linestyle() == "-" for arc in arcs) == {True: 13, False: 3}
    assert STUDY.draw(Results("figure10")) == {}
