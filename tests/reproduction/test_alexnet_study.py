"""AlexNet with parts left out: the rows, what is measured on training images, and the rules."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.reproduction import Results
from cnnlab.reproduction.alexnet import AlexNetStudy
from cnnlab.training import Recipe
from tests.reproduction.small_study import made_up_row

STUDY = AlexNetStudy()


def made_up(
    accuracies: Mapping[str, Sequence[float | None]], gaps: Mapping[str, float] | None = None, **more
) -> Results:
    """Results with these test accuracies; training images are better by the gap."""
    rows = {name: made_up_row(name, values) for name, values in accuracies.items()}
    for name, gap in (gaps or {}).items():
        for run in rows[name].runs:
            run["found"] = {"train_accuracy": run["test_accuracy"] + gap}
    return Results("alexnet", rows=rows, **more)


def outcomes(results: Results) -> list[str]:
    return [verdict.outcome for verdict in STUDY.verdicts(results)]


@pytest.mark.parametrize("quick", [False, True])
def test_rows_differ_in_the_parts_that_they_name(quick: bool) -> None:
    rows = {row.name: row for row in STUDY.rows(Results("alexnet", quick))}
    assert list(rows) == ["all", "no-dropout", "no-augmentation", "no-lrn", "none"]
    base = rows["all"].recipe
    plain = base.replace(flip="none", crop=0, pca_colour=0.0)
    assert (base.flip, base.crop, base.pca_colour) == ("random", 4, 0.1)
    parts = {}
    for name, row in rows.items():
        assert row.recipe in (base, plain)
        network: Any = nnx.eval_shape(lambda row=row: cnnlab.create_model(row.model, **row.options))
        parts[name] = (network.dropout.rate > 0, row.recipe == base, network.normalized)
        sizes = [math.prod(p.shape) for p in jax.tree.leaves(nnx.state(network, nnx.Param))]
        assert sum(sizes) == 3_172_554
    assert parts == {
        "all": (True, True, True),
        "no-dropout": (False, True, True),
        "no-augmentation": (True, False, True),
        "no-lrn": (True, True, False),
        "none": (False, False, False),
    }
    assert {row.seeds for row in rows.values()} == {1 if quick else 3}
    assert base.held_out, "the test set is read once"


def test_a_part_adds_what_the_test_shows() -> None:
    results = made_up(
        {"all": [0.85, 0.86, 0.855], "no-dropout": [0.82, 0.825, 0.83], "no-augmentation": [0.854, 0.857, 0.853],
         "no-lrn": [0.88, 0.881, 0.882]}
    )  # fmt: skip
    assert outcomes(results)[:3] == ["holds", "undecided", "does not hold"]
    first = STUDY.verdicts(results)[0]
    error = 100 * np.sqrt(2 * 0.005**2 / 3)
    assert first.measured.startswith("all 85.50 ± 0.50 % (3), no-dropout 82.50 ± 0.50 % (3): ")
    assert f": +3.00 ± {error:.2f} points, p = " in first.measured
    assert outcomes(replace(results, quick=True)) == ["undecided"] * 5


def test_over_fitting_is_judged_by_the_gap_to_training_images() -> None:
    accuracies = {name: [0.80, 0.81] for name in ("all", "no-dropout", "no-augmentation")}
    wider = made_up(accuracies, {"all": 0.05, "no-dropout": 0.15, "no-augmentation": 0.01})
    assert outcomes(wider)[3:] == ["holds", "does not hold"]
    cells = {line[0]: line[2:] for line in STUDY.table(wider)[1]}
    assert cells["no-dropout"] == ["80.50 ± 0.71 % (2)", "+0.00 ± 0.71", "95.50 ± 0.71 % (2)", "15.00 ± 0.00"]
    assert cells["all"][1] == "-"
    del wider.rows["all"].runs[0]["found"]
    assert outcomes(wider)[3:] == ["undecided"] * 2, "a gap is not known"


def test_what_is_missing_is_not_run_and_what_diverged_is_undecided() -> None:
    assert outcomes(Results("alexnet")) == ["not run"] * 5
    assert STUDY.table(Results("alexnet"))[1] == []
    results = made_up({"all": [0.8, 0.8], "no-dropout": [None, None], "no-lrn": []})
    found = STUDY.verdicts(results)
    assert found[0].outcome == "undecided" and "no-dropout 2 diverged" in found[0].measured
    assert [verdict.outcome for verdict in found[1:3]] == ["not run"] * 2
    assert [line[2] for line in STUDY.table(results)[1]] == ["80.00 ± 0.00 % (2)", "2 diverged", "not run"]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, cnnlab.Run]:
    folder = tmp_path_factory.mktemp("alexnet") / "all" / "seed-0"
    recipe = Recipe(epochs=1, batch_size=50, schedule="constant", held_out=100, flip="random", target_accuracy=2.0)
    run = cnnlab.fit("mlp", "digits?train=400", recipe, out=folder, model_options={"hidden": (16,)}, progress=False)
    return folder, run


def test_the_accuracy_on_training_images_is_that_of_the_best_network_without_held_out_images(run_folder) -> None:
    folder, run = run_folder
    found = json.loads(json.dumps(STUDY.inspect(folder)))
    train, held_out = cnnlab.load_dataset("digits?train=400").hold_out(100)
    assert (len(train), len(held_out)) == (300, 100)
    logits = np.asarray(run.best(train.images.astype(np.float32) / 255))
    assert found == {"train_accuracy": np.mean(logits.argmax(-1) == train.labels)}


def test_dots_and_curves_are_drawn_of_what_is_there() -> None:
    results = made_up({"all": [0.8, 0.81], "no-dropout": [0.7, None], "none": [0.6]})
    figures = STUDY.draw(results)
    assert set(figures) == set(STUDY.figures)
    legends: list[Any] = [axes.get_legend() for axes in figures["curves"].axes]
    names = [[text.get_text() for text in legend.get_texts()] for legend in legends]
    kinds = ["held-out images", "training images, as trained on"]
    assert names == [[*kinds, "all", "no-dropout"], [*kinds, "all", "none"]]
    assert STUDY.draw(Results("alexnet")) == {}
