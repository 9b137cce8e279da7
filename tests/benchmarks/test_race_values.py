"""Every value of the race's recipes is the published one, by hand from the scripts' own terms."""

import math
from typing import Any

import pytest

from cnnlab.models import summarize
from cnnlab.training import Recipe, get_recipe

# What the published scripts of one kind share: airbench94, 95 and 96 (SGD), and airbench94_muon.
ALL = {
    "order": "shuffled",
    "last_batch": "drop",
    "precision": "float32",
    "schedule": "linear",
    "momentum": 0.85,
    "nesterov": True,
    "label_smoothing": 0.2,
    "flip": "alternating",
    "crop_fill": "reflect",
    "standardize": True,
    "held_out": 0,
    "target_accuracy": 2.0,  # none: the last epoch counts
    "freeze": ("whiten.kernel",),
}
SGD = {
    **ALL,
    "batch_size": 1024,
    "optimizer": "sgd",
    "warmup_start": 0.2,
    "average": "lookahead",
    "average_decay": 0.95**5,
    "average_every": 5,
    "average_ramp": 3.0,
    "learning_rates": (("*.norms.*", 64.0),),
    "weight_decays": (("*.norms.*", 1 / 64), ("whiten.bias", 1.0)),
}
PUBLISHED = {
    "race94": {**SGD, "epochs": 10, "warmup_epochs": 0.23 * 10, "final_rate": 0.07, "crop": 2},
    "race95": {**SGD, "epochs": 15, "warmup_epochs": 0.23 * 15, "final_rate": 0.07, "crop": 2},
    "race96": {**SGD, "epochs": 37, "warmup_epochs": 0.1 * 37, "final_rate": 0.0, "crop": 4, "cutout": 12},
    "race94-muon": {
        **ALL,
        "batch_size": 2000,
        "epochs": 8,
        "optimizer": "muon",
        "muon_learning_rate": 0.24,
        "muon_momentum": 0.6,
        "muon_steps": 3,
        "muon_normalize": True,
        "warmup_epochs": 0.0,
        "final_rate": 0.0,
        "average": "none",
        "crop": 2,
    },
}
# Rates and weight decays come by a calculation: the tests below. What is called or told trains nothing. Without an
# average its numbers are idle, and so is where a warm-up of no steps starts.
CALCULATED = {"learning_rate", "weight_decay", "name", "source", "result"}
IDLE = {"average_decay", "average_every", "average_ramp", "warmup_start"}
MUON_CALCULATED = {"learning_rates", "weight_decays"}


def by_hand(widths: tuple[int, ...], depth: int) -> int:
    """Parameters of `cifarnet`: whitening with bias, 3x3 filters and biases of norms, the last layer."""
    groups = sum(9 * a * b + (depth - 1) * 9 * b * b + depth * b for a, b in zip((24, *widths), widths, strict=False))
    return 12 * 24 + 24 + groups + 10 * widths[-1]


NETWORKS = {
    "race94": {"target": 94, "parameters": 1_971_640, "convolutions": 7},
    "race94-muon": {"target": 94, "parameters": 1_971_640, "convolutions": 7},
    "race95": {"target": 95, "parameters": by_hand((128, 384, 384), 2), "convolutions": 7},
    "race96": {"target": 96, "parameters": by_hand((128, 384, 512), 3), "convolutions": 10},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_field_is_the_published_value_or_the_default(name: str) -> None:
    recipe = get_recipe(name)
    expected = {**vars(Recipe()), **PUBLISHED[name]}
    left_out = CALCULATED | (IDLE | MUON_CALCULATED if name == "race94-muon" else set())
    for field, value in vars(recipe).items():
        if field not in left_out:
            close = pytest.approx(value, rel=1e-12) if isinstance(value, float) else value
            assert expected[field] == close, field


@pytest.mark.parametrize(
    ("name", "rate", "decay"), [("race94", 11.5, 0.0153), ("race95", 10, 0.0153), ("race96", 9, 0.012)]
)
def test_the_rates_of_gradient_descent_are_the_published_ones(name: str, rate: float, decay: float) -> None:
    """Rate and decay "per 1024 examples": PyTorch gets rate / kilo and decay * 1024 / kilo / that rate."""
    recipe, kilo = get_recipe(name), 1024 * (1 + 1 / (1 - 0.85))
    torch_rate = rate / kilo
    torch_decay = decay * 1024 / kilo / torch_rate
    # The sum of the losses is 1024 times their mean.
    assert recipe.learning_rate == pytest.approx(torch_rate * 1024, rel=1e-12)
    assert recipe.weight_decay == pytest.approx(torch_decay / 1024, rel=1e-12)


def test_the_rates_beside_muon_are_the_published_ones() -> None:
    recipe = get_recipe("race94-muon")
    assert dict(recipe.learning_rates) == {"head": pytest.approx(0.67 / 0.053)}
    assert recipe.learning_rate == pytest.approx(0.053 * 2000)
    # In the long run momentum makes what a step takes off, 2e-6 * 2000 in the gradient, 1 / (1 - 0.85) times as much.
    off = 2e-6 * 2000 / (1 - 0.85)
    decays = dict(recipe.weight_decays)
    assert recipe.learning_rate * recipe.weight_decay == pytest.approx(off)
    assert decays == {"*.norms.*": 1.0, "whiten.bias": 1.0, "head": pytest.approx(0.053 / 0.67), "*.convs.*": 0.0}


@pytest.mark.parametrize("name", NETWORKS)
def test_each_race_has_the_published_network(room: Any, name: str) -> None:
    entry, published = room("race_run").ENTRIES[name], NETWORKS[name]
    assert entry.target == published["target"]
    costs = summarize("cifarnet", **entry.options)
    assert costs.parameters == published["parameters"]
    assert sum(layer.kind == "Conv" for layer in costs.layers) == published["convolutions"]


def test_the_options_of_the_networks_are_the_published_ones(room: Any) -> None:
    assert {name: entry.options for name, entry in room("race_run").ENTRIES.items()} == {
        "race94": {},
        "race94-muon": {"logit_scale": 1 / 256, "unit_head": True},
        "race95": {"widths": [128, 384, 384]},
        "race96": {"widths": [128, 384, 512], "depth": 3, "norm_momentum": 0.9},
    }


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        ("race94-muon", ("logit_scale=1/256", "unit_head=True")),
        ("race95", ("widths=(128, 384, 384)",)),
        ("race96", ("widths=(128, 384, 512)", "depth=3", "norm_momentum=0.9")),
    ],
    ids=["race94-muon", "race95", "race96"],
)
def test_the_source_of_a_recipe_names_the_options_that_its_network_needs(name: str, texts: tuple[str, ...]) -> None:
    source = get_recipe(name).source
    assert all(text in source for text in (*texts, "the bias of the whitening trains to the end"))


@pytest.mark.parametrize(
    ("name", "published"), [("race94", 0.36), ("race94-muon", 0.29), ("race95", 1.39), ("race96", 4.91)]
)
def test_the_counted_operations_of_a_run_are_the_published_ones(room: Any, name: str, published: float) -> None:
    options = room("race_run").ENTRIES[name].options
    found = room("race_facts").petaflop(get_recipe(name), options, 50_000, 10_000, 32)
    # Theirs are rounded, and of 9.9 epochs for 94 %; what is counted beside products is not told.
    assert found["total"] == pytest.approx(published, rel=0.03)
    assert math.isclose(found["total"], found["train"] + found["evaluate"]) and found["evaluate"] > 0
