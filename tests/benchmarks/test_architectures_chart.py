"""The chart of the architectures can be read: names clear of dots, lines and each other, a colour for each family."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text

RESULT = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "architectures.json"
DENSITY = 200  # of the file, in dots per inch


def committed(seed=None):
    """The committed result, as far as it was measured; with a seed, each speed times a random factor."""
    result = json.loads(RESULT.read_text(encoding="utf-8"))
    entries = result["architectures"].items()
    result["architectures"] = {name: entry for name, entry in entries if "error" not in entry["cnnlab"]}
    if seed is not None:
        rng = np.random.default_rng(seed)
        for entry in result["architectures"].values():
            entry["cnnlab"]["train_images_per_second"]["median"] *= rng.uniform(0.7, 1.4)
    return result


def faults(axes):
    """What lies on what in a panel, by the extents that the renderer gives."""
    names = {text.get_text(): text for text in axes.texts}
    boxes = {name: Text.get_window_extent(text) for name, text in names.items()}  # without its line
    found = [f"{a} on {b}" for a in boxes for b in boxes if a < b and boxes[a].overlaps(boxes[b])]
    found += [f"{name} outside" for name, box in boxes.items() if not contains(axes.bbox, box)]
    scale = axes.figure.dpi / 72
    for dots in axes.collections:
        radius = scale * (dots.get_sizes()[0] ** 0.5 + dots.get_linewidths()[0]) / 2
        for middle in axes.transData.transform(dots.get_offsets()):
            for name, box in boxes.items():
                if np.linalg.norm(np.clip(middle, box.min, box.max) - middle) < radius:
                    found.append(f"{name} on the dot at {middle}")
    for name, text in names.items():
        if text.arrow_patch is not None:
            ends = text.arrow_patch.get_transform().transform(text.arrow_patch.get_path().vertices)
            line = ends[0] + np.linspace(0, 1, 500)[:, None] * (ends[-1] - ends[0])
            for other, box in boxes.items():
                if other != name and ((line > box.min) & (line < box.max)).all(axis=-1).any():
                    found.append(f"line of {name} through {other}")
    return found


def contains(frame, box):
    return (box.min >= frame.min).all() and (box.max <= frame.max).all()


@pytest.mark.parametrize("seed", [None, 11, 18], ids=["committed", "other-11", "other-18"])
def test_no_name_lies_on_a_dot_another_name_or_a_line(room, seed):
    result = committed(seed)
    figure = room("architectures_chart").chart(result)
    figure.set_dpi(DENSITY)
    figure.draw_without_rendering()
    assert sorted(text.get_text() for axes in figure.axes for text in axes.texts) == sorted(result["architectures"])
    assert [fault for axes in figure.axes for fault in faults(axes)] == []


def test_the_faults_of_a_bad_chart_are_seen(room):
    figure = room("architectures_chart").chart(committed())
    axes = figure.axes[0]
    texts = {text.get_text(): text for text in axes.texts}
    texts["lenet"].set_position((0, 0))  # on its own dot
    texts["plain20"].xy, texts["plain20"].xyann = texts["resnet20"].xy, texts["resnet20"].xyann
    figure.draw_without_rendering()
    found = faults(axes)
    assert any(fault.startswith("lenet on the dot") for fault in found) and "plain20 on resnet20" in found


def test_names_of_dots_on_one_spot_part_and_have_lines_that_cross_no_name(room):
    places = room("name_places")
    dots = np.array([[100.0, 50.0], [101.0, 50.0], [100.0, 51.0]])
    sizes = np.full((3, 2), (50.0, 10.0))
    found = places.place_names(dots, np.full(3, 3.0), sizes, (np.zeros(2), np.array([200.0, 100.0])))
    low, high = found.middles - sizes / 2, found.middles + sizes / 2
    for one in range(3):
        line = found.starts[one] + np.linspace(0, 1, 500)[:, None] * (dots[one] - found.starts[one])
        for other in {0, 1, 2} - {one}:
            assert not ((line > low[other]) & (line < high[other])).all(axis=-1).any()
            assert (low[one] >= high[other]).any() or (low[other] >= high[one]).any()
    assert found.lines.all()  # each could belong to another dot without


def test_a_name_alone_stands_to_the_right_of_its_dot_without_a_line(room):
    frame = np.zeros(2), np.array([200.0, 100.0])
    found = room("name_places").place_names(np.array([[50.0, 50.0]]), np.array([3.0]), np.array([[40.0, 10.0]]), frame)
    np.testing.assert_allclose(found.middles, [[50 + 3 + 3 + 20, 50]], rtol=1e-12)  # radius, gap, half the name
    assert not found.lines.any()


def test_a_place_costs_its_gap_a_line_and_that_another_dot_is_as_near(room):
    dots, sizes = np.array([[60.0, 50.0], [122.0, 50.0]]), np.full((2, 2), (50.0, 10.0))
    options = room("name_places")._options(dots, np.full(2, 3.0), sizes, (np.zeros(2), np.array([200.0, 100.0])))
    np.testing.assert_allclose(options.middles[:, 0], [[91, 50], [153, 50]], rtol=1e-12)  # to the right
    # The gap is 3, and so is that to the other dot: a line, and 3 + 7 - 3 points too near at 2 each.
    np.testing.assert_allclose(options.cost[:, 0], [3 + 3 + 2 * 7, 3], rtol=1e-12)


def test_a_line_enters_a_box_or_crosses_a_line_only_between_its_ends(room):
    places, low, high = room("name_places"), np.array([10.0, 10.0]), np.array([20.0, 14.0])
    lines = {((0, 0), (30, 24)): True, ((0, 12), (9, 12)): False, ((15, 0), (15, 9)): False, ((15, 12), (0, 0)): True}
    for (start, end), enters in lines.items():
        assert places._enters(np.array(start, float), np.array(end, float), low, high) == enters
    ends = [np.array(end, float) for end in ((0, 0), (10, 10), (0, 10), (10, 0), (4, 6))]
    assert places._cross(*ends[:4]) and not places._cross(*ends[:3], ends[4])


def test_lines_cross_only_where_both_are_drawn(room):
    places, dots = room("name_places"), np.array([[10.0, 10.0], [10.0, 0.0]])
    high = np.array([[[0.0, 0.0]], [[0.0, 15.0]]])
    starts = np.array([[[0.0, 0.0]], [[0.0, 10.0]]])
    for lines, crossings in (([True, True], 1), ([True, False], 0), ([False, True], 0)):
        drawn = np.array(lines)[:, None]
        options = places._Options(high - 2.5, high - 5, high, starts, drawn, np.zeros((2, 1)))
        assert places._clashes(options, dots, 0, np.array([1]), np.array([0, 0])) == [crossings]


def test_each_family_has_a_look_of_its_own_in_the_legend_and_the_axes_name_their_units(room):
    chart, result = room("architectures_chart"), committed()
    figure = chart.chart(result)
    (legend,) = figure.legends
    handles = zip(legend.get_texts(), legend.legend_handles, strict=True)
    shown = {text.get_text(): tuple(handle.get_edgecolor()[0]) for text, handle in handles}
    assert set(shown) == {re.split("[^a-z]", name)[0] for name in result["architectures"]}
    assert len(set(shown.values())) == len(shown)
    drawn = [dots for axes in figure.axes for dots in axes.collections if len(dots.get_offsets())]
    assert {tuple(dots.get_edgecolor()[0]) for dots in drawn} == set(shown.values())
    for axes in figure.axes:
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        assert axes.get_xlabel() == "multiply-adds per image, forward pass"
        assert axes.get_ylabel() == "training, images per second"


def test_where_colours_are_used_up_markers_tell_families_apart(room):
    chart = room("architectures_chart")
    many = [chart._Dot("n", f"f{number}", 32, 1.0, 1.0, 1) for number in range(40)]
    assert len(set(chart._looks(many).values())) == 40


def test_a_result_without_measurements_has_no_chart(room):
    empty = {**committed(), "architectures": {"net": {"image_size": 32, "cnnlab": {"error": "no"}}}}
    with pytest.raises(room("measure").BenchmarkError, match="at least one measured architecture, got none"):
        room("architectures_chart").chart(empty)
