"""The figures: what they show, that they are saved the same way each time, and that they leave no trace."""

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from cnnlab.report import (
    Example,
    plot_confusion_matrix,
    plot_examples,
    plot_filters,
    plot_learning_curves,
    plot_per_class,
    save_figure,
)
from cnnlab.report.style import VERMILION


def history(epochs, **changes):
    lines = [
        {
            "epoch": e,
            "train_loss": 1 / e,
            "loss": 2 / e,
            "train_accuracy": 0.5,
            "accuracy": 0.1 * e,
            "monitor": "test",
        }
        for e in range(1, epochs + 1)
    ]
    return [{**line, **changes.get(f"epoch_{line['epoch']}", {})} for line in lines]


def texts(axes):
    return [text.get_text().replace("\u00a0", " ") for text in axes.texts]


def test_one_run_shows_its_cuts_its_best_epoch_and_the_names_of_its_curves():
    run = history(8, epoch_3={"event": "cut"}, epoch_4={"learning_rate": 1e-3}, epoch_8={"accuracy": None})
    loss, accuracy = plot_learning_curves([run]).axes
    assert {"train", "test", "1e-3"} <= set(texts(loss))
    assert "best 70.0 %, epoch 7" in texts(accuracy)
    cuts = [line for line in accuracy.lines if list(line.get_xdata()) == [3, 3]]
    assert len(cuts) == 1
    np.testing.assert_array_equal(accuracy.collections[0].get_offsets(), [[7, 0.7 * 100]])
    drawn = [line for line in accuracy.lines if len(np.asarray(line.get_xdata())) == 7]
    np.testing.assert_allclose(drawn[0].get_ydata(), 10.0 * np.arange(1, 8), rtol=1e-12)


def test_seeds_share_a_mean_for_as_long_as_all_of_them_last():
    short, long = history(3), [{**line, "accuracy": line["accuracy"] + 0.2} for line in history(5)]
    accuracy = plot_learning_curves([short, long]).axes[1]
    mean = max(accuracy.lines[3:], key=lambda line: line.get_linewidth())
    np.testing.assert_allclose(mean.get_xdata(), [1, 2, 3], rtol=0)
    np.testing.assert_allclose(mean.get_ydata(), [20, 30, 40], rtol=1e-12)
    assert len(accuracy.collections) == 2


def test_labelled_runs_have_a_legend_and_no_mean():
    loss, accuracy = plot_learning_curves([history(3), history(3)], labels=["plain 20", "plain $56$"]).axes
    legend = loss.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["plain 20", "plain $56$"]
    assert max(line.get_linewidth() for line in accuracy.lines) < 2
    assert VERMILION not in [matplotlib.colors.to_hex(c).upper() for c in accuracy.collections[0].get_facecolor()]


def test_a_run_that_diverged_or_has_one_epoch_is_drawn(tmp_path):
    nan = float("nan")
    diverged = history(3, epoch_2={"loss": nan, "train_loss": float("inf")}, epoch_3={"loss": nan, "accuracy": nan})
    save_figure(plot_learning_curves([diverged]), tmp_path / "diverged.png")
    assert plot_learning_curves([history(1)]).axes[0].lines[0].get_marker() == "o"
    bare = plot_learning_curves([[{"epoch": 1}, {"epoch": 2}]])
    assert len(bare.axes) == 2


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"^Expected one or more histories .*, got an empty one; "):
        plot_learning_curves([history(2), []])
    with pytest.raises(ValueError, match=r"^Expected 1 labels, one per history, got 2; "):
        plot_learning_curves([history(2)], labels=["a", "b"])
    with pytest.raises(ValueError, match=r"^Expected a matrix of shape \[3, 3\], .*got \[2, 2\]; "):
        plot_confusion_matrix([[1, 0], [0, 1]], ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"^Expected one or more classes, got none; "):
        plot_per_class([])
    with pytest.raises(ValueError, match=r"^Expected kernels of shape .*, got \[5, 5, 3\]; "):
        plot_filters(np.zeros((5, 5, 3)))
    with pytest.raises(ValueError, match=r"^Expected one or more examples, got none; "):
        plot_examples([])
    with pytest.raises(ValueError, match=r"^Expected a uint8 image .*, got float64 \[4, 4, 3\]; "):
        plot_examples([Example(np.zeros((4, 4, 3)), "a", "b", 0.5)])


def test_confusion_cells_are_per_cent_of_their_row_or_counts():
    matrix, classes = [[197, 3, 0], [1, 998, 1], [0, 0, 0]], ["a", "b", "never seen"]
    assert texts(plot_confusion_matrix(matrix, classes).axes[0]) == [
        "98",
        "2",
        "0",
        "<1",
        "100",
        "<1",
        "0",
        "0",
        "0",
    ]
    counts = plot_confusion_matrix(matrix, classes, normalize=False).axes[0]
    assert texts(counts) == ["197", "3", "0", "1", "998", "1", "0", "0", "0"]
    assert [label.get_text() for label in counts.get_yticklabels()] == classes


def test_more_than_twenty_classes_are_colours_only():
    matrix = np.arange(441).reshape(21, 21)
    axes = plot_confusion_matrix(matrix, [str(i) for i in range(21)]).axes[0]
    assert texts(axes) == []
    shown = np.asarray(axes.images[0].get_array())
    np.testing.assert_allclose(shown, 100 * matrix / matrix.sum(axis=1, keepdims=True), rtol=1e-12)


def test_bars_are_precision_recall_and_f1_and_many_classes_show_the_weakest():
    rows = [{"name": f"c{i}", "precision": 0.5, "recall": 0.25, "f1": (i + 1) / 100} for i in range(50)]
    axes = plot_per_class(rows[:2]).axes[0]
    widths = [bar.get_width() for container in axes.containers for bar in container]
    np.testing.assert_allclose(widths, [50, 50, 25, 25, 1, 2], rtol=1e-12)
    assert "The 40 classes of 50" in plot_per_class(rows[::-1]).axes[0].get_title("left")
    assert [label.get_text() for label in plot_per_class(rows[::-1]).axes[0].get_yticklabels()][:2] == [
        "c0",
        "c1",
    ]


def test_filters_are_scaled_so_that_grey_is_zero():
    kernels = np.zeros((1, 2, 3, 2), np.float32)
    kernels[0, 0, :, 0] = [0.5, -0.25, 0.0]
    shown = [np.asarray(image.get_array()) for image in plot_filters(kernels).axes[0].images]
    np.testing.assert_allclose(shown[0], [[[1.0, 0.25, 0.5], [0.5, 0.5, 0.5]]], rtol=1e-6)
    np.testing.assert_allclose(shown[1], np.full((1, 2, 3), 0.5), rtol=1e-6)
    grey = plot_filters(np.full((3, 3, 1, 100), -2.0)).axes[0]
    assert len(grey.images) == 96
    assert "The first 96 of 100 filters" in grey.get_title("left")
    np.testing.assert_allclose(np.asarray(grey.images[0].get_array()), -1.0, rtol=1e-6)


def test_examples_say_label_prediction_and_confidence_and_keep_proportions():
    wide = np.zeros((10, 20, 1), np.uint8)
    axes = plot_examples([Example(wide, "cat", "dog", 0.934)]).axes[0]
    assert texts(axes) == ["cat → dog", "93 %"]
    left, right, bottom, top = axes.images[0].get_extent()
    assert (right - left, top - bottom) == (1.0, 0.5)


def test_a_saved_figure_has_two_pixels_per_point_of_the_screen_and_the_same_bytes(tmp_path):
    matrix, classes = [[2, 1], [0, 3]], ["$\\frac$", "日本語 \ud800"]
    first = save_figure(plot_confusion_matrix(matrix, classes), tmp_path / "1.png")
    figure = plot_confusion_matrix(matrix, classes)
    second = save_figure(figure, tmp_path / "2.png")
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.format == "PNG"
        assert list(image.size) == [round(200 * inches) for inches in figure.get_size_inches()]
        assert set(image.info) <= {"dpi"}
        assert np.asarray(image.convert("L")).std() > 10  # not a blank sheet


def test_drawing_leaves_no_trace_in_the_settings_of_matplotlib(tmp_path):
    with matplotlib.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "red"}):
        before = dict(matplotlib.rcParams)
        figure = plot_learning_curves([history(2)])
        save_figure(figure, tmp_path / "a.png")
        assert dict(matplotlib.rcParams) == before
    assert figure.axes[0].get_facecolor() == (1.0, 1.0, 1.0, 1.0)


def test_neither_the_import_nor_a_figure_brings_in_pyplot():
    code = (
        "import sys, cnnlab.report as report\n"
        "assert 'matplotlib' not in sys.modules, 'import'\n"
        "report.plot_per_class([{'name': 'a', 'precision': 1, 'recall': 1, 'f1': 1}])\n"
        "assert 'matplotlib.pyplot' not in sys.modules, 'pyplot'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
