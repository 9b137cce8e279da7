"""Degradation: the paper's recipe counted by hand, and the verdicts."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.models import create_model
from cnnlab.reproduction import Results
from cnnlab.reproduction.figure8 import Figure8
from cnnlab.reproduction.he_recipe import he_recipe
from cnnlab.training import make_optimizer
from cnnlab.training.schedule import learning_rate_schedule
from tests.reproduction.small_study import made_up_row, made_up_run

STUDY = Figure8()
PLANNED = {row.name: row.seeds for row in STUDY.rows(Results("figure8"))}
PARAMETERS = {"plain20": 269_722, "plain56": 853_018, "resnet20": 269_722, "resnet56": 853_018}


def made_up(train: dict[str, list[float | None]], test: dict[str, list[float | None]] | None = None, **how) -> Results:
    """Results with these errors in per cent after the last epoch; None is a run that diverged."""
    rows = {}
    for name, values in train.items():
        planned, runs = PLANNED[name], []
        for seed, (a, b) in enumerate(zip(values, (test or train)[name], strict=True)):
            accuracy = None if b is None else 1 - b / 100
            runs.append(made_up_run(seed, accuracy, last_train_accuracy=0.1 if a is None else 1 - a / 100))
        rows[name] = replace(made_up_row(name, []), planned_seeds=planned, runs=runs)
    return Results("figure8", rows=rows, **how)


PAPER = {"plain20": [4.0, 4.2, 4.1], "plain56": [8.0, 8.5, 9.0], "resnet20": [1.9, 2, 2.1], "resnet56": [0.2, 0.3, 0.1]}


def outcomes(results: Results) -> list[str]:
    return [verdict.outcome for verdict in STUDY.verdicts(results)]


def test_the_rate_falls_at_the_papers_iterations_to_the_nearest_epoch():
    recipe = he_recipe()
    steps = 391  # 50,000 = 390 * 128 + 80, and the short batch is kept
    assert recipe.last_batch == "keep" and 390 * 128 < 50_000 < steps * 128
    assert recipe.epochs * steps == 64_124 and 82 * steps == 32_062 and 123 * steps == 48_093
    for ours, paper in ((64_124, 64_000), (32_062, 32_000), (48_093, 48_000)):
        assert abs(ours - paper) < steps, "no other number of epochs is nearer"
    rate = learning_rate_schedule(recipe, steps)
    seen = [float(rate(update)) for update in (0, 32_061, 32_062, 48_092, 48_093, 64_123)]
    np.testing.assert_allclose(seen, [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6)


def test_the_careful_start_rises_from_a_tenth_of_the_rate_in_one_epoch():
    rate = learning_rate_schedule(he_recipe(careful_start=True), 391)
    seen = [float(rate(update)) for update in (0, 391 // 2, 391, 32_061, 32_062, 48_093)]
    np.testing.assert_allclose(seen, [0.01, 0.01 + 0.09 * 195 / 391, 0.1, 0.1, 0.01, 0.001], rtol=1e-5)


def test_the_rest_of_the_recipe_is_the_papers():
    recipe = he_recipe()
    assert (recipe.batch_size, recipe.momentum, recipe.nesterov, recipe.optimizer) == (128, 0.9, False, "sgd")
    assert (recipe.crop, recipe.crop_fill, recipe.flip, recipe.standardize) == (4, "zero", "random", True)
    assert recipe.label_smoothing == recipe.noise == recipe.cutout == recipe.mixup == 0
    assert recipe.held_out == 0 and recipe.target_accuracy > 1, "the test images steer nothing"


def test_every_parameter_decays():
    params = {"bn": {"scale": jnp.full(2, 2.0)}, "conv": {"kernel": jnp.full((1, 1, 2, 2), 3.0)}, "b": jnp.full(1, 5.0)}
    optimizer = make_optimizer(he_recipe(), 391)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    expected = jax.tree.map(lambda p: -0.1 * 1e-4 * p, params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, expected)


@pytest.mark.parametrize("quick", [False, True])
def test_every_row_is_a_network_of_the_paper_with_the_same_recipe(quick: bool):
    rows = STUDY.rows(Results("figure8", quick))
    assert [row.name for row in rows] == list(PARAMETERS)
    for row in rows:
        network = nnx.eval_shape(lambda row=row: create_model(row.model, **row.options, rngs=nnx.Rngs(0)))
        counted = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
        assert counted == PARAMETERS[row.name]
    assert len({row.recipe for row in rows}) == 1
    assert {row.seeds for row in rows} == {1 if quick else 3}


def test_a_shortened_schedule_is_cut_at_half_and_three_quarters():
    (row, *_) = STUDY.rows(Results("figure8"))
    shorter = row.in_epochs(8).recipe
    assert (shorter.epochs, shorter.milestones) == (8, (4.0, 6.0))
    quick = STUDY.rows(Results("figure8", quick=True))[0].recipe
    assert (quick.epochs, quick.milestones, quick.batch_size, quick.learning_rate) == (6, (3.0, 4.5), 32, 0.025)


def test_the_claims_hold_where_deeper_plain_is_worse_and_deeper_residual_better():
    results = made_up(PAPER)
    assert outcomes(results) == ["holds"] * 4
    measured = STUDY.verdicts(results)[0].measured
    # Means 8.5 and 4.1; variances 0.25 and 0.01 over three runs each.
    error = np.sqrt(0.26 / 3)
    assert measured.startswith(
        f"plain56 8.50 ± 0.50 % (3), plain20 4.10 ± 0.10 % (3): +4.40 ± {error:.2f} points, p = "
    )


def test_each_claim_fails_alone():
    worse = {**PAPER, "resnet56": [5.0, 5.1, 5.2]}
    assert outcomes(made_up(worse)) == ["holds", "holds", "does not hold", "does not hold"]
    assert outcomes(made_up(PAPER, worse)) == ["holds", "holds", "holds", "does not hold"]
    better = {**PAPER, "plain56": [1.0, 1.1, 1.2]}
    assert outcomes(made_up(better, PAPER)) == ["does not hold", "holds", "holds", "holds"]


def test_what_the_test_does_not_tell_apart_is_undecided():
    close = {**PAPER, "plain56": [3.0, 4.3, 5.6]}  # above by 0.2, the standard error is 0.75
    assert outcomes(made_up(close)) == ["undecided", "undecided", "holds", "holds"]


def test_one_seed_decides_nothing_and_a_shortened_schedule_refutes_nothing():
    single = {"plain20": [4.0], "plain56": [9.1], "resnet20": [2.0], "resnet56": [1.1]}
    assert outcomes(made_up(single)) == ["undecided"] * 4
    results = made_up({**PAPER, "resnet56": [5.0, 5.1, 5.2]}, epochs=8)
    assert outcomes(results) == ["holds", "holds", "undecided", "undecided"]
    assert all(v.measured.endswith("(schedules shortened to 8 epochs)") for v in STUDY.verdicts(results))


def test_two_of_three_seeds_decide_a_shortened_version_and_not_one_in_full_length():
    two = made_up({name: errors[:2] for name, errors in PAPER.items()})
    assert {(row.planned_seeds, len(row.runs)) for row in two.rows.values()} == {(3, 2)}
    asked = {name: replace(row, asked_seeds=2) for name, row in two.rows.items()}
    assert outcomes(Results("figure8", rows=asked)) == ["undecided"] * 4
    assert outcomes(Results("figure8", rows=asked, epochs=4)) == ["holds"] * 4
    assert outcomes(Results("figure8", rows=two.rows, epochs=4)) == ["undecided"] * 4, "nobody asked for fewer"


def test_missing_and_diverged_runs_and_the_quick_version_leave_it_open():
    assert outcomes(Results("figure8")) == ["not run"] * 4
    half = made_up({name: PAPER[name] for name in ("plain20", "plain56")})
    assert outcomes(half) == ["holds", "holds", "not run", "not run"]
    planned = {name: replace(row, planned_seeds=4) for name, row in made_up(PAPER).rows.items()}
    assert outcomes(Results("figure8", rows=planned)) == ["undecided"] * 4
    diverged = made_up({**PAPER, "plain56": [8.0, 8.5, None]})
    assert outcomes(diverged) == ["undecided", "undecided", "holds", "holds"]
    assert "plain56 8.25 ± 0.35 % (2), 1 diverged" in STUDY.verdicts(diverged)[0].measured
    assert outcomes(made_up({**PAPER, "plain56": [None] * 3}))[0] == "undecided"
    assert outcomes(made_up(PAPER, quick=True)) == ["undecided"] * 4


def test_the_table_has_a_line_per_network():
    head, lines = STUDY.table(made_up({"plain20": [4.0, 4.2], "plain56": [None]}))
    assert all(len(line) == len(head) for line in lines)
    assert [line[:3] for line in lines] == [
        ("plain, 20 layers", "4.10 ± 0.14 % (2)", "4.10 ± 0.14 % (2)"),
        ("plain, 56 layers", "1 diverged", "1 diverged"),
        ("residual, 20 layers", "not run", "not run"),
        ("residual, 56 layers", "not run", "not run"),
    ]


def test_the_figure_shows_plain_networks_beside_residual_ones(tmp_path):
    assert STUDY.draw(Results("figure8")) == {}
    for results in (made_up({"plain20": [4.0]}), made_up(PAPER)):
        figures = STUDY.draw(results)
        assert set(figures) == set(STUDY.figures)
        figures["curves"].savefig(tmp_path / "curves.png")
    assert [axes.get_title(loc="left") for axes in figures["curves"].axes] == ["plain", "residual"]
    assert [len(axes.lines) for axes in figures["curves"].axes] == [12, 12], "two rows, three seeds, two kinds of error"
    for axes, networks in zip(figures["curves"].axes, (("plain20", "plain56"), ("resnet20", "resnet56")), strict=True):
        legend = axes.get_legend()
        assert legend is not None
        styles = {line.get_label(): line.get_linestyle() for line in legend.get_lines()}
        assert styles == {"test": "-", "training, during the epoch": "--", **dict.fromkeys(networks, "-")}
        for line in axes.lines:
            places = [0.5, 1.5] if line.get_linestyle() == "--" else [1, 2]
            np.testing.assert_array_equal(line.get_xdata(), places, "training errors belong to the middle of an epoch")
