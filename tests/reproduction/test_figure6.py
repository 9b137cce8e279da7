"""ReLU against tanh: the sweep step by step, the interpolation by hand, the verdict."""

import math
from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx
from scipy import stats

from cnnlab.models import create_model
from cnnlab.reproduction import Results, Row, RowResults
from cnnlab.reproduction.figure6 import Figure6
from cnnlab.reproduction.rate_sweep import RATES, epochs_to, sweep
from tests.reproduction.small_study import made_up_run

STUDY = Figure6()
DIVERGES = -1
World = Callable[[str, float, int], float]
"""Activation, rate and seed to the epoch in which 25 % error is reached; infinity never, DIVERGES in the second."""


def run_of(row: Row, seed: int, reached: float) -> dict:
    """A run that has half of the images right until it has 80 %; 25 % error at five sixths between the last middles."""
    if reached == DIVERGES:
        return made_up_run(seed, None, epochs=2, last_train_accuracy=0.1, history={"train_accuracy": [0.3, 0.1]})
    epochs = int(min(reached, row.recipe.epochs))
    curve = [0.5] * (epochs - 1) + [0.8 if reached <= row.recipe.epochs else 0.5]
    return made_up_run(seed, 0.6, epochs=epochs, last_train_accuracy=curve[-1], history={"train_accuracy": curve})


def one_more(results: Results, world: World) -> tuple[Results, str | None]:
    """Do what is asked for first and not done yet."""
    rows = {row.name: replace(results.rows.get(row.name) or RowResults(row.name, row.what)) for row in rows_of(results)}
    for row in rows_of(results):
        found = rows[row.name] = replace(rows[row.name], planned_seeds=row.seeds)
        if len(found.runs) < row.seeds:
            seed = len(found.runs)
            reached = world(row.options["activation"], row.recipe.learning_rate, seed)
            rows[row.name] = replace(found, runs=[*found.runs, run_of(row, seed, reached)])
            return replace(results, rows=rows), f"{row.name}/{seed} in {row.recipe.epochs}"
    return replace(results, rows=rows), None


def rows_of(results: Results) -> list[Row]:
    rows = STUDY.rows(results)
    return rows if results.epochs is None else [row.in_epochs(results.epochs) for row in rows]


def play(world: World, *, steps: int = 100, **how) -> tuple[Results, list[str]]:
    """Go through a study; what was asked for before must not change on the way."""
    results, done = Results("figure6", **how), []
    for _ in range(steps):
        before = {row.name: row.recipe for row in rows_of(results)}
        results, what = one_more(results, world)
        after = {row.name: row.recipe for row in rows_of(results)}
        assert before.items() <= after.items(), "a row that was asked for stays as it is"
        if what is None:
            return results, done
        done.append(what)
    return results, done


def times(relu: dict[float, float], tanh: dict[float, float]) -> World:
    return lambda activation, rate, seed: (relu if activation == "relu" else tanh).get(rate, math.inf)


PAPER = times({0.003: 9, 0.01: 6, 0.03: DIVERGES}, {0.003: 50, 0.01: 36, 0.03: 40})


def test_epochs_are_counted_to_where_the_line_between_two_middles_of_epochs_crosses_the_accuracy():
    # 60 % in the middle of the second epoch, at 1.5, 80 % at 2.5: three quarters of the way.
    assert epochs_to(0.75, [0.4, 0.6, 0.8, 0.9]) == pytest.approx(2.25, rel=1e-12)
    assert epochs_to(0.75, [0.4, 0.75]) == 1.5
    # From chance, 10 %, at the start to 85 % at 0.5.
    assert epochs_to(0.75, [0.85]) == pytest.approx(0.5 * 65 / 75, rel=1e-12)
    assert epochs_to(0.75, [0.4, 0.7499]) is None and epochs_to(0.75, []) is None
    assert epochs_to(0.75, [0.4, None, 0.8]) == pytest.approx(1.5 + 65 / 70, rel=1e-12)


def test_the_sweep_goes_up_then_down_and_gives_the_fastest_rate_its_further_seeds():
    assert play(PAPER)[1] == [
        "relu-0.01/0 in 60",
        "relu-0.03/0 in 8",  # 1.25 times 6 epochs, rounded up
        "relu-0.003/0 in 8",
        "relu-0.01/1 in 60",
        "relu-0.01/2 in 60",
        "relu-0.01/3 in 60",
        "tanh-0.01/0 in 60",
        "tanh-0.03/0 in 45",
        "tanh-0.003/0 in 45",
        "tanh-0.01/1 in 60",
        "tanh-0.01/2 in 60",
        "tanh-0.01/3 in 60",
    ]


def test_the_sweep_goes_on_in_the_direction_that_is_faster():
    done = play(times({0.01: 9, 0.03: 7, 0.1: 6, 0.3: DIVERGES}, {0.01: 40, 0.03: DIVERGES, 0.003: 20, 0.001: 30}))[1]
    assert [what for what in done if what.startswith("relu")] == [
        "relu-0.01/0 in 60",
        "relu-0.03/0 in 12",
        "relu-0.1/0 in 9",
        "relu-0.3/0 in 8",
        "relu-0.1/1 in 9",
        "relu-0.1/2 in 9",
        "relu-0.1/3 in 9",
    ]
    assert [what for what in done if what.startswith("tanh")] == [
        "tanh-0.01/0 in 60",
        "tanh-0.03/0 in 50",
        "tanh-0.003/0 in 50",
        "tanh-0.001/0 in 25",
        "tanh-0.003/1 in 50",
        "tanh-0.003/2 in 50",
        "tanh-0.003/3 in 50",
    ]


def test_a_sweep_ends_at_the_last_rate_there_is():
    runs = {rate: run_of(STUDY.rows(Results("figure6"))[0], 0, 20 - place) for place, rate in enumerate(RATES)}
    found = sweep(runs.get, 0.75, start=0.3, most_epochs=60)
    assert list(found.caps) == [0.3, 1.0] and found.best == 1.0 and found.reached and found.over
    assert found.at_an_end, "a higher rate may be faster"


def test_where_no_rate_gets_there_the_least_error_leads():
    def world(activation: str, rate: float, seed: int) -> float:
        return 6 if activation == "relu" else math.inf

    results, done = play(world)
    swept = [f"tanh-{rate}/0 in 60" for rate in ("0.01", "0.03", "0.003")]
    assert [what for what in done if "tanh" in what] == swept + [f"tanh-0.01/{seed} in 60" for seed in (1, 2, 3)]
    found = results.rows["tanh-0.03"]
    better = replace(found, runs=[{**found.runs[0], "last_train_accuracy": 0.7}])
    fresh = [row.name for row in STUDY.rows(replace(results, rows={**results.rows, "tanh-0.03": better}))]
    assert "tanh-0.1" in fresh, "a lower error leads on to the next rate"


def test_where_every_rate_diverges_the_sweep_ends():
    results, done = play(lambda *_: DIVERGES)
    assert len(done) == 12 and {row.recipe.epochs for row in STUDY.rows(results)} == {60}
    (verdict,) = STUDY.verdicts(results)
    assert verdict.outcome == "undecided" and "ReLU at 0.01: diverged in epoch 2, div" in verdict.measured
    assert set(STUDY.draw(results)) == {"curves", "sweep"}


def test_all_that_is_known_at_once_gives_the_same_rows_as_step_by_step():
    results, _ = play(PAPER)
    rows = STUDY.rows(Results("figure6", rows=results.rows))
    assert [row.name for row in rows] == [f"{a}-{rate}" for a in ("relu", "tanh") for rate in ("0.01", "0.03", "0.003")]
    assert [row.seeds for row in rows] == [4, 1, 1, 4, 1, 1]


def test_a_cap_from_outside_holds_for_every_row():
    caps = {what.split("/")[0]: what.split(" in ")[1] for what in play(PAPER, epochs=20)[1]}
    expected = {"relu-0.01": "20", "relu-0.03": "8", "relu-0.003": "8"}
    expected |= {f"tanh-{rate}": "20" for rate in ("0.01", "0.03", "0.003")}
    assert caps == expected, "and none gets more than the sweep gives it"


def test_the_verdict_holds_when_tanh_takes_three_times_as_long():
    results, _ = play(PAPER)
    (verdict,) = STUDY.verdicts(results)
    # The middles of the last two epochs are 4.5 and 5.5; 75 % is five sixths of the way from 50 to 80 %.
    relu, tanh = 4.5 + 5 / 6, 34.5 + 5 / 6
    assert verdict.outcome == "holds" and verdict.measured.startswith(f"{tanh / relu:.1f} times; epochs: ReLU at 0.01")
    assert verdict.measured.endswith("; against 3 times, p < 0.001")
    assert f"{relu:.2f} ± 0.00 (3)" in verdict.measured and f"{tanh:.2f} ± 0.00 (3)" in verdict.measured


def test_the_verdict_does_not_hold_when_tanh_is_nearly_as_fast():
    results, _ = play(times({0.01: 6}, {0.01: 12}))
    assert STUDY.verdicts(results)[0].outcome == "does not hold"


def test_the_verdict_is_undecided_while_welchs_test_does_not_tell_the_ratio_from_three():
    def world(activation: str, rate: float, seed: int) -> float:
        return math.inf if rate != 0.01 else [6, 6, 7, 8][seed] if activation == "relu" else [12, 22, 27, 34][seed]

    (verdict,) = STUDY.verdicts(play(world)[0])
    relu, tanh = (np.array(epochs) - 1.5 + 5 / 6 for epochs in ((6, 7, 8), (22, 27, 34)))
    p = stats.ttest_ind(tanh, 3 * relu, equal_var=False).pvalue
    assert p > 0.05 and verdict.outcome == "undecided"
    assert verdict.measured.startswith(f"{tanh.mean() / relu.mean():.1f} times; epochs: ")
    assert verdict.measured.endswith(f"; against 3 times, p = {p:.2g}")


def test_the_seed_that_chose_the_rate_is_not_judged():
    def world(activation: str, rate: float, seed: int) -> float:
        return math.inf if rate != 0.01 else 6 if activation == "relu" else 12 if seed == 0 else 40

    results, _ = play(world)
    (verdict,) = STUDY.verdicts(results)
    assert verdict.outcome == "holds" and "tanh at 0.01: 39.33 ± 0.00 (3)" in verdict.measured
    line = next(line for line in STUDY.table(results)[1] if line[:2] == ("tanh", "0.01"))
    assert line[2:4] == ("39.33 ± 0.00 (3)", "fastest; seed 0, which chose it, apart: 11.33 (1)")


def test_a_fastest_rate_at_the_end_of_the_grid_leaves_it_open():
    results, _ = play(times({0.01: 10, 0.03: 9, 0.1: 8, 0.3: 7, 1.0: 6}, {0.01: 50, 0.003: 55, 0.03: 55}))
    (verdict,) = STUDY.verdicts(results)
    assert verdict.outcome == "undecided" and "ReLU at 1: 5.33 ± 0.00 (3)" in verdict.measured


def test_a_further_seed_that_diverges_leaves_it_open():
    results, _ = play(PAPER)
    results.rows["tanh-0.01"].runs[2]["diverged"] = True  # late, so that the epochs it had would be enough
    assert STUDY.verdicts(results)[0].outcome == "undecided"


def test_a_tanh_that_never_gets_there_bounds_the_ratio_from_below():
    verdict = STUDY.verdicts(play(times({0.01: 6}, {}))[0])[0]
    assert verdict.outcome == "holds" and verdict.measured.startswith(f"more than {59.5 / (4.5 + 5 / 6):.1f} times")
    verdict = STUDY.verdicts(play(times({0.01: 30}, {}))[0])[0]
    assert verdict.outcome == "undecided", "a bound of two times says nothing about three"
    verdict = STUDY.verdicts(play(times({}, {0.01: 30}))[0])[0]
    assert verdict.outcome == "undecided" and "not within 60 epochs" in verdict.measured


def test_the_verdict_waits_for_both_sweeps_and_all_seeds():
    assert STUDY.verdicts(Results("figure6"))[0].outcome == "not run"
    outcomes = [STUDY.verdicts(play(PAPER, steps=steps)[0])[0].outcome for steps in range(13)]
    assert outcomes == ["not run"] * 9 + ["undecided"] * 3 + ["holds"]
    assert STUDY.verdicts(play(PAPER, epochs=36)[0])[0].outcome == "holds", "shorter, but tanh gets there"
    assert STUDY.verdicts(play(times({0.01: 6}, {0.01: 12}), epochs=36)[0])[0].outcome == "undecided"


def test_the_quick_version_has_one_seed_and_no_verdict():
    results, done = play(times({0.01: 8}, {0.01: 28}), quick=True)
    assert len(done) == 6 and all("/0 in " in what for what in done) and done[0] == "relu-0.01/0 in 30"
    assert {row.data for row in STUDY.rows(results)} == {"cifar10?train=2500&test=1000"}
    (verdict,) = STUDY.verdicts(results)
    assert verdict.outcome == "undecided" and " times; epochs" in verdict.measured
    assert verdict.measured.endswith(" (quick version)")


def test_the_table_is_sorted_by_rate_and_says_what_did_not_get_there():
    results, _ = play(PAPER)
    head, lines = STUDY.table(results)
    assert all(len(line) == len(head) for line in lines)
    assert [line[:4] for line in lines] == [
        ("ReLU", "0.003", "not within 8 epochs", ""),
        ("ReLU", "0.01", "5.33 ± 0.00 (3)", "fastest; seed 0, which chose it, apart: 5.33 (1)"),
        ("ReLU", "0.03", "diverged in epoch 2", ""),
        ("tanh", "0.003", "not within 45 epochs", ""),
        ("tanh", "0.01", "35.33 ± 0.00 (3)", "fastest; seed 0, which chose it, apart: 35.33 (1)"),
        ("tanh", "0.03", "39.33 (1)", ""),
    ]
    assert lines[1][4] == "60.00 ± 0.00 % (3)" and lines[2][4] == "-"
    assert [line[2] for line in STUDY.table(Results("figure6"))[1]] == ["not run", "not run"]


def test_figures_can_be_drawn_as_soon_as_there_is_a_run(tmp_path):
    assert STUDY.draw(Results("figure6")) == {}
    for steps in (1, 4, 100):
        figures = STUDY.draw(play(PAPER, steps=steps)[0])
        assert set(figures) == set(STUDY.figures)
        for name, figure in figures.items():
            figure.savefig(tmp_path / f"{name}.png")
    (curves,) = figures["curves"].axes
    assert 25.0 in [line.get_ydata()[0] for line in curves.lines], "the line at 25 %"
    (axes,) = figures["sweep"].axes
    (tanh,) = [line for line in axes.lines if line.get_label() == "tanh"]
    np.testing.assert_allclose(tanh.get_xdata(), [0.01, 0.03])
    np.testing.assert_allclose(tanh.get_ydata(), [34.5 + 5 / 6, 38.5 + 5 / 6])
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "x"] == [0.03]
    assert [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "^"] == [8, 45]


def test_figures_set_the_seed_that_chose_a_rate_apart_as_the_table_does():
    def world(activation: str, rate: float, seed: int) -> float:
        return math.inf if rate != 0.01 else 6 if activation == "relu" else 12 if seed == 0 else 40

    figures, chose = STUDY.draw(play(world)[0]), "seed 0, which chose the rate"
    (axes,) = figures["sweep"].axes
    means = {line.get_label(): line.get_ydata()[0] for line in axes.lines if line.get_marker() == "."}
    assert means == {"ReLU": pytest.approx(4.5 + 5 / 6), "tanh": pytest.approx(38.5 + 5 / 6)}, "without seed 0"
    circles = [line for line in axes.lines if line.get_marker() == "o"]
    hollow = {line.get_label(): line.get_ydata()[0] for line in circles if line.get_markerfacecolor() == "none"}
    assert hollow == {f"ReLU, {chose}": pytest.approx(4.5 + 5 / 6), f"tanh, {chose}": pytest.approx(10.5 + 5 / 6)}
    filled = [len(line.get_ydata()) for line in circles if line.get_markerfacecolor() != "none"]
    assert sorted(filled) == [0, 0, 0, 0, 3, 3], "the others; no other rate gets there"

    (axes,) = figures["curves"].axes
    drawn = [line for line in axes.lines if line.get_linestyle() in "--" and len(line.get_xdata())]
    assert [len(line.get_xdata()) for line in drawn if line.get_linestyle() == "--"] == [6, 12], "seed 0 of each"
    assert [len(line.get_xdata()) for line in drawn if line.get_linestyle() == "-"] == [6, 6, 6, 40, 40, 40]
    for line in drawn:
        middles = np.arange(len(line.get_xdata())) + 0.5
        np.testing.assert_array_equal(line.get_xdata(), middles, "where the count of epochs has them")
    legend = axes.get_legend()
    assert legend is not None
    names = {f"{name}, {what}" for name in ("ReLU", "tanh") for what in ("rate 0.01", chose)}
    assert {text.get_text() for text in legend.get_texts()} == {*names, "25 %"}


def test_the_seeds_asked_for_decide_a_shortened_version_where_two_of_them_are_judged():
    for asked, outcome in ((2, "undecided"), (3, "holds")):
        results, _ = play(PAPER, epochs=36)
        rows = {
            name: replace(row, asked_seeds=asked, runs=[run for run in row.runs if run["seed"] < asked])
            for name, row in results.rows.items()
        }
        assert STUDY.verdicts(replace(results, rows=rows))[0].outcome == outcome
        assert STUDY.verdicts(replace(results, rows=rows, epochs=None))[0].outcome == "undecided"


@pytest.mark.parametrize("quick", [False, True])
def test_every_row_is_a_four_layer_network_without_regularisation(quick: bool):
    for row in STUDY.rows(play(PAPER, quick=quick)[0]):
        network = nnx.eval_shape(lambda row=row: create_model(row.model, **row.options, rngs=nnx.Rngs(0)))
        leaves = jax.tree.leaves(nnx.state(network, nnx.Param))
        assert sum(leaf.size for leaf in leaves) == 89_578 and len(leaves) == 2 * 4
        recipe = row.recipe
        assert recipe.weight_decay == recipe.crop == recipe.noise == recipe.label_smoothing == recipe.cutout == 0
        assert recipe.flip == recipe.average == "none" and recipe.mixup == recipe.cutmix == recipe.pca_colour == 0
        assert recipe.schedule == "constant" and recipe.target_train_accuracy == 0.75 and recipe.held_out == 0
