"""Figure 3: the data, the straight line, the verdicts; and the study itself once, with one seed and few epochs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.report import save_figure
from cnnlab.reproduction.figure3 import Figure3, _is_straight, best_line, rings
from cnnlab.reproduction.gather import collect
from cnnlab.reproduction.results import Results, RowResults
from cnnlab.reproduction.runner import seed_folders_of, train_row

STUDY = Figure3()
LINEAR, BEST, SEEN = ("linear", "linear-deep", "no-hidden"), 0.64, 5
REGIONS = ["0" * 32 + "1" * 32] * 64
SIGMOID_FITS, LINEAR_FAILS, ONE_LINE = 0, 1, 2  # the order of the verdicts


def results_of(
    sigmoid: list[float] | None = None,
    linear: list[float] | None = None,
    *,
    planned: int = 2,
    straight: bool = True,
    curved: bool = True,
    **version: Any,
) -> Results:
    """Results with these accuracies, the same for each row of linear activations, and regions cut in the middle.

    Those of linear activations are of the seeds from 5 on; the ones before are far too good, and must not count.
    """
    values = {"sigmoid": [0.99, 0.98] if sigmoid is None else sigmoid}
    fresh = [0.55, 0.60] if linear is None else linear
    values |= dict.fromkeys(LINEAR, [0.9] * SEEN + fresh if fresh else [])
    seen = {name: SEEN * (name in LINEAR) for name in values}
    rows = {
        name: RowResults(name, f"what {name} is", planned_seeds=planned + seen[name], seen_seeds=seen[name], runs=[
            {"seed": seed, "test_accuracy": value, "diverged": False,
             "found": {"regions": REGIONS, "straight": not curved if name == "sigmoid" else straight}}
            for seed, value in enumerate(found)
        ])
        for name, found in values.items()
    }  # fmt: skip
    points = {"x": [10, 200], "y": [20, 100], "label": [0, 1]}
    return Results("figure3", rows=rows, measured={"best_line": BEST, "points": points}, **version)


def outcomes(results: Results) -> list[str]:
    return [verdict.outcome for verdict in STUDY.verdicts(results)]


@pytest.mark.parametrize("quick", [False, True])
def test_every_row_is_a_recipe_and_a_network_that_cnnlab_knows(quick: bool) -> None:
    rows = STUDY.rows(Results("figure3", quick=quick))
    assert [row.name for row in rows] == ["linear", "sigmoid", "linear-deep", "no-hidden"]
    for row in rows:
        assert row.seeds == (2 if quick else 10) and row.in_epochs(2).recipe.epochs == 2
        options = {**row.options, "num_classes": 2, "image_size": 1}
        network = nnx.eval_shape(lambda row=row, o=options: cnnlab.create_model(row.model, rngs=nnx.Rngs(0), **o))
        shapes = [leaf.shape for _, leaf in nnx.to_flat_state(nnx.state(network, nnx.Param)) if len(leaf.shape) == 2]
        assert len(shapes) == len(row.options["hidden"]) + 1
    first, second = rows[0], rows[1]
    assert first.options["hidden"] == second.options["hidden"] and first.recipe == second.recipe


def test_the_rings_are_the_same_at_every_call_and_apart_by_their_radius() -> None:
    data, again = rings(), rings()
    assert data.fingerprint == again.fingerprint and data.image_shape == (1, 1, 3)
    for split, n in ((data.train, 1200), (data.test, 500)):
        x, y, nothing = split.images[:, 0, 0].astype(float).T
        radius = np.hypot(x - 127.5, y - 127.5)
        assert len(split) == n and split.labels.sum() == n / 2 and not nothing.any()
        rounding = 2**-0.5  # pixels, the most that rounding moves a point
        assert radius[split.labels == 0].max() <= 60 + rounding
        assert 84 - rounding <= radius[split.labels == 1].min() and radius.max() <= 120 + rounding


def right_of_the_best_line(plane: np.ndarray, labels: Any) -> float:
    weights, bias = best_line(plane, np.asarray(labels))
    return float(np.mean((plane @ weights + bias > 0) == labels))


def test_the_best_line_of_points_on_a_lattice_is_known_by_hand() -> None:
    square = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert right_of_the_best_line(square, [0, 1, 1, 0]) == 0.75, "exclusive or: three of four"
    assert right_of_the_best_line(square, [0, 0, 1, 1]) == 1.0
    assert right_of_the_best_line(square, [1, 1, 0, 0]) == 1.0, "whichever side is which"
    assert right_of_the_best_line(square, [1, 1, 1, 1]) == 1.0, "the line lies outside"
    ring = np.array([[0, 0], [2, 0], [-2, 0], [0, 2], [0, -2], [0, 0]])
    assert right_of_the_best_line(ring, [0, 1, 1, 1, 1, 0]) == 4 / 6, "the centre and two neighbours, or two of these"


def test_no_line_through_a_grid_of_lines_beats_the_best_one() -> None:
    rng = np.random.default_rng(0)
    test = rings().test
    plane = test.images[:, 0, 0, :2].astype(int)
    best = right_of_the_best_line(plane, test.labels)
    found = []
    for _ in range(2000):
        weights = rng.normal(size=2)
        above = (plane - rng.uniform(50, 200, 2)) @ weights > 0
        right = np.mean(above == test.labels)
        found.append(max(right, 1 - right))
    assert best - 0.02 < max(found) <= best
    # The line that touches the disc leaves out a part of the ring: arccos(0.5 / r) / pi of it at radius r.
    outside = np.mean(np.arccos(0.5 / np.linspace(0.7, 1.0, 1001)) / np.pi)
    assert abs(best - (1 + outside) / 2) < 0.04, "500 points, of which the line is the best"


def test_a_straight_line_is_told_from_a_bent_one() -> None:
    y, x = np.indices((64, 64))
    assert _is_straight((3 * x - 7 * y + 40 > 0).astype(int))
    assert _is_straight((61 * x - 62 * y > 0).astype(int)), "almost the diagonal"
    assert _is_straight(np.zeros((64, 64), int)), "the line lies outside"
    assert not _is_straight((np.hypot(x - 31.5, y - 31.5) > 20).astype(int))
    bent = (x > 20).astype(int)
    bent[40, 19] = 1
    assert not _is_straight(bent), "one point on the other side"


def test_the_verdicts_hold_for_a_fit_with_sigmoids_and_lines_without() -> None:
    verdicts = STUDY.verdicts(results_of())
    assert [verdict.outcome for verdict in verdicts] == ["holds"] * 3
    assert verdicts[SIGMOID_FITS].measured == "98.50 ± 0.71 % (2)"
    assert verdicts[LINEAR_FAILS].measured == (
        "linear 57.50 ± 3.54 % (2), linear-deep 57.50 ± 3.54 % (2), no-hidden 57.50 ± 3.54 % (2); the line 64.00 %"
    )
    assert verdicts[ONE_LINE].measured == "straight: 21 of 21 linear networks, 0 of 2 with sigmoids"
    assert not any(verdict.afterwards for verdict in verdicts)


@pytest.mark.parametrize(
    ("changes", "which", "outcome"),
    [
        ({"sigmoid": [0.96, 0.97]}, SIGMOID_FITS, "does not hold"),
        ({"sigmoid": [0.97, 0.97]}, SIGMOID_FITS, "holds"),
        ({"sigmoid": [0.90, 0.90], "epochs": 3}, SIGMOID_FITS, "undecided"),
        ({"sigmoid": []}, SIGMOID_FITS, "not run"),
        ({"sigmoid": [0.99, None]}, SIGMOID_FITS, "undecided"),
        ({"quick": True}, SIGMOID_FITS, "undecided"),
        ({"linear": [0.66, 0.67]}, LINEAR_FAILS, "does not hold"),
        ({"linear": [0.65, 0.66]}, LINEAR_FAILS, "holds"),
        ({"linear": [0.66, 0.67], "quick": True}, LINEAR_FAILS, "undecided"),
        ({"linear": [0.66, 0.67], "epochs": 3}, LINEAR_FAILS, "undecided"),
        ({"linear": []}, LINEAR_FAILS, "not run"),
        ({"linear": []}, ONE_LINE, "not run"),
        ({"straight": False}, ONE_LINE, "does not hold"),
        ({"curved": False}, ONE_LINE, "does not hold"),
        ({"straight": False, "quick": True}, ONE_LINE, "does not hold"),
        ({"quick": True}, ONE_LINE, "holds"),
        ({"curved": False, "epochs": 3}, ONE_LINE, "undecided"),
    ],
)
def test_each_verdict_follows_its_rule(changes: dict[str, Any], which: int, outcome: str) -> None:
    assert outcomes(results_of(**changes))[which] == outcome


def test_too_few_seeds_decide_nothing_but_that_a_line_is_bent() -> None:
    assert outcomes(results_of(planned=5)) == ["undecided"] * 3
    refuted = results_of([0.5], [0.9], planned=5, straight=False)
    assert outcomes(refuted) == ["undecided", "undecided", "does not hold"]
    unknown = results_of()
    del unknown.rows["no-hidden"].runs[1]["found"]
    assert outcomes(unknown)[ONE_LINE] == "undecided"


def test_the_quick_version_decides_what_is_exact_with_the_rows_that_it_has() -> None:
    results = results_of(quick=True)
    for row in STUDY.rows(Results("figure3", quick=True)):
        runs = results.rows[row.name].runs[: row.seeds]
        results.rows[row.name] = replace(RowResults.planned(row), runs=runs)
    assert outcomes(results) == ["undecided", "undecided", "holds"]
    assert not any("seeds from" in verdict.rule for verdict in STUDY.verdicts(results))


def test_seeds_that_had_been_seen_when_the_rule_was_written_do_not_decide() -> None:
    results = results_of()
    for name in LINEAR:
        del results.rows[name].runs[SEEN:]
    verdict = STUDY.verdicts(replace(results, rows={n: replace(r, planned_seeds=2) for n, r in results.rows.items()}))
    assert verdict[LINEAR_FAILS].outcome == "undecided"
    assert "linear 90.00 ± 0.00 % (5), all seen before the rule" in verdict[LINEAR_FAILS].measured


def test_nothing_found_is_an_empty_table_and_not_run() -> None:
    nothing = Results("figure3")
    assert outcomes(nothing) == ["not run"] * 3 and STUDY.table(nothing)[1] == [] and STUDY.draw(nothing) == {}


def test_the_figure_has_a_panel_per_row_with_regions_and_points() -> None:
    results = results_of()
    figure = STUDY.draw(results)["regions"]
    assert [axes.get_title("left") for axes in figure.axes] == list(results.rows)
    assert figure.axes[1].get_xlabel() == f"test accuracy, mean (n seeds):\n{STUDY.table(results)[1][1][2]}"
    (image,) = figure.axes[0].get_images()
    np.testing.assert_array_equal(np.asarray(image.get_array())[0], [0] * 32 + [1] * 32)
    assert [len(line.get_xdata()) for line in figure.axes[0].lines] == [1, 1]


def test_three_epochs_of_two_rows_become_regions_a_table_and_a_figure(tmp_path: Path) -> None:
    rows = [replace(row, seeds=1).in_epochs(3) for row in STUDY.rows(Results("figure3", quick=True))[:2]]
    assert [row.name for row in rows] == ["linear", "sigmoid"]
    for row in rows:
        assert train_row(row, [0], tmp_path, progress=False)
    folders = {row.name: seed_folders_of(row, tmp_path) for row in rows}
    results = collect(rows, folders, Results("figure3", quick=True, epochs=3))
    for name, paths in folders.items():
        results.rows[name].runs[0]["found"] = json.loads(json.dumps(STUDY.inspect(paths[0])))
    results = replace(results, measured=json.loads(json.dumps(STUDY.measure(results))))

    measured, found = results.measured, {name: row.runs[0]["found"] for name, row in results.rows.items()}
    assert {len(each["regions"]) for each in found.values()} == {64}
    assert {len(line) for each in found.values() for line in each["regions"]} == {64}
    assert found["linear"]["straight"] is True
    # What the regions say of the test points is what the run has measured of them, but for cells that a border crosses.
    for row in rows:
        regions = np.array([[int(digit) for digit in line] for line in found[row.name]["regions"]])
        points = {key: np.array(values) for key, values in measured["points"].items()}
        right = np.mean(regions[points["y"] // 4, points["x"] // 4] == points["label"])
        assert abs(right - results.rows[row.name].mean("test_accuracy")) < 0.05
    most = right_of_the_best_line(np.stack([measured["points"]["x"], measured["points"]["y"]], axis=1), points["label"])
    assert 0.5 < measured["best_line"] <= most < 0.7, "no line is better on the test points than one searched there"

    assert STUDY.table(results)[1][-1][2] == f"{100 * measured['best_line']:.2f} %"
    assert save_figure(STUDY.draw(results)["regions"], tmp_path / "regions.png").stat().st_size > 1000
