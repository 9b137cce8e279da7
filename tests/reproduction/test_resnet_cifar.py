"""The table of residual networks: rows, verdicts against the paper's numbers, figures."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from cnnlab.models import create_model
from cnnlab.reproduction import Results
from cnnlab.reproduction.figure8 import Figure8
from cnnlab.reproduction.resnet_cifar import ResNetCifar
from tests.reproduction.small_study import made_up_row

STUDY = ResNetCifar()
PARAMETERS = {
    "resnet20": 269_722,
    "resnet32": 464_154,
    "resnet44": 658_586,
    "resnet56": 853_018,
    "resnet110": 1_727_962,
}
GOOD = {"resnet20": 8.5, "resnet32": 7.6, "resnet44": 7.1, "resnet56": 6.9, "resnet110": 6.5}


def made_up(errors: dict[str, float | list[float | None]], *, spread: float = 0.1, **how) -> Results:
    """Results with these errors in per cent: of a number, five runs (three of 110 layers) around it."""
    rows = {}
    for name, value in errors.items():
        steps = [-1, 0, 1] if name == "resnet110" else [-1, -1, 0, 1, 1]
        values = value if isinstance(value, list) else [value + spread * step for step in steps]
        accuracies = [None if error is None else 1 - error / 100 for error in values]
        rows[name] = made_up_row(name, accuracies, parameters=PARAMETERS[name])
    return Results("resnet-cifar", rows=rows, **how)


def outcomes(results: Results) -> list[str]:
    return [verdict.outcome for verdict in STUDY.verdicts(results)]


def test_every_row_is_a_network_of_the_paper():
    rows = STUDY.rows(Results("resnet-cifar"))
    assert [(row.name, row.seeds) for row in rows] == list(zip(PARAMETERS, [5, 5, 5, 5, 3], strict=True))
    for row in rows:
        network = nnx.eval_shape(lambda row=row: create_model(row.model, **row.options, rngs=nnx.Rngs(0)))
        counted = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(network, nnx.Param)))
        assert counted == PARAMETERS[row.name]
    assert [row.recipe.warmup_epochs for row in rows] == [0, 0, 0, 0, 1]
    assert all(row.in_epochs(6).recipe.milestones == pytest.approx((3, 4.5)) for row in rows)


def test_the_networks_of_figure_8_have_the_same_recipe_here():
    of_figure8 = {row.name: row.recipe for row in Figure8().rows(Results("figure8"))}
    here = {row.name: row.recipe for row in STUDY.rows(Results("resnet-cifar"))}
    assert here["resnet20"] == of_figure8["resnet20"] and here["resnet56"] == of_figure8["resnet56"]


def test_the_quick_version_is_two_small_networks_and_decides_nothing():
    rows = STUDY.rows(Results("resnet-cifar", quick=True))
    assert [(row.name, row.seeds, row.data) for row in rows] == [
        ("resnet20", 1, "cifar10?train=4000&test=1000"),
        ("resnet32", 1, "cifar10?train=4000&test=1000"),
    ]
    results = made_up({"resnet20": [60.0], "resnet32": [61.0]}, quick=True)
    assert outcomes(results) == ["undecided"] * 2 + ["not run"] * 4
    assert STUDY.verdicts(results)[0].measured == "60.00 % (1), +51.25 points (quick version)"


def test_the_claims_hold_within_half_a_point_or_below():
    assert outcomes(made_up(GOOD)) == ["holds"] * 6
    assert STUDY.verdicts(made_up(GOOD))[0].measured == "8.50 ± 0.10 % (5), -0.25 points"
    papers = {"resnet20": 8.75, "resnet32": 7.51, "resnet44": 7.17, "resnet56": 6.97, "resnet110": 6.61}
    above = {name: error + 0.48 for name, error in papers.items()}
    assert outcomes(made_up(above)) == ["holds"] * 6
    above = {name: error + 0.52 for name, error in papers.items()}
    assert outcomes(made_up(above)) == ["does not hold"] * 5 + ["holds"], "the order is right all the same"


def test_what_counts_is_the_last_epoch_and_not_the_best():
    results = made_up(GOOD)
    for run in results.rows["resnet20"].runs:
        run["test_accuracy"] = 0.99
    assert STUDY.verdicts(results)[0].measured.startswith("8.50")
    assert STUDY.table(results)[1][0][4:] == ("8.50 ± 0.10 % (5)", "1.00 ± 0.00 % (5)")


def test_the_order_fails_where_more_layers_are_clearly_worse():
    assert outcomes(made_up({**GOOD, "resnet44": 7.9}))[-1] == "does not hold"
    # Above by 0.1; the variance is spread squared, so that the standard error is 0.3 * sqrt(2 / 5) = 0.19.
    assert outcomes(made_up({**GOOD, "resnet44": 7.7}, spread=0.3))[-1] == "undecided"
    assert outcomes(made_up({**GOOD, "resnet44": 7.59}, spread=0.3))[-1] == "holds"


def test_a_shortened_schedule_may_hold_and_refutes_nothing():
    assert outcomes(made_up(GOOD, epochs=8)) == ["holds"] * 6
    assert STUDY.verdicts(made_up(GOOD, epochs=8))[0].measured.endswith("(schedules shortened to 8 epochs)")
    worse = {name: 30 + error for name, error in GOOD.items()}
    assert outcomes(made_up({**worse, "resnet44": 40.0}, epochs=8)) == ["undecided"] * 6


def test_a_single_seed_decides_nothing_however_it_was_asked_for():
    for seeds, outcome in ((1, "undecided"), (2, "holds")):
        (row,) = made_up({"resnet20": [8.5] * seeds}).rows.values()
        rows = {"resnet20": replace(row, planned_seeds=5, asked_seeds=seeds)}
        assert outcomes(Results("resnet-cifar", epochs=8, rows=rows))[0] == outcome
        assert outcomes(Results("resnet-cifar", rows=rows))[0] == "undecided"


def test_missing_seeds_and_divergence_leave_it_open():
    assert outcomes(Results("resnet-cifar")) == ["not run"] * 6
    assert outcomes(made_up({"resnet20": 8.5})) == ["holds"] + ["not run"] * 5
    few = made_up(GOOD)
    few.rows["resnet20"].runs.pop()
    assert outcomes(few) == ["undecided"] + ["holds"] * 4 + ["undecided"]
    lost = made_up({**GOOD, "resnet20": [8.5, 8.6, 8.4, 8.5, None], "resnet110": [None] * 3})
    assert outcomes(lost) == ["undecided"] + ["holds"] * 3 + ["undecided"] * 2
    assert STUDY.verdicts(lost)[4].measured == "3 diverged"


def test_the_table_has_the_papers_numbers_beside_ours():
    head, lines = STUDY.table(made_up({"resnet20": 8.5, "resnet110": 6.5}))
    assert all(len(line) == len(head) for line in lines)
    assert lines[0][:5] == ("20", "0.27 M", "269,722", "8.75 %", "8.50 ± 0.10 % (5)")
    assert lines[1][:5] == ("32", "0.46 M", "-", "7.51 %", "not run")
    assert lines[4][:5] == ("110", "1.7 M", "1,727,962", "6.61 ± 0.16 % (5), best 6.43 %", "6.50 ± 0.10 % (3)")


def test_the_figure_marks_the_papers_error_on_each_line(tmp_path):
    assert STUDY.draw(Results("resnet-cifar")) == {}
    figures = STUDY.draw(made_up({"resnet20": 8.5, "resnet110": 6.5}))
    assert set(figures) == set(STUDY.figures)
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")
    (axes,) = figures["errors"].axes
    diamonds = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "D"]
    assert diamonds == [(8.75, 0), (6.61, 1)]
    legend = axes.get_legend()
    assert legend is not None
    entries = {line.get_label(): line.get_marker() for line in legend.get_lines()}
    assert entries == {"a run": "o", "mean": "None", "the paper's value": "D"}
    dots = [line.get_xdata() for line in axes.lines if line.get_marker() == "o"]
    np.testing.assert_allclose(dots[0], [8.4, 8.4, 8.5, 8.6, 8.6])
