"""Metrics against scikit-learn, with classes that are never predicted and classes that never occur."""

import json
import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from cnnlab.evaluation import evaluation_from_predictions

# The same few operations in float64.
FLOAT64 = 1e-12


@st.composite
def answers(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray]:
    """A number of classes, labels and predictions; classes may be missing from either or both."""
    classes = draw(st.integers(1, 6))
    pairs = draw(st.lists(st.tuples(*[st.integers(0, classes - 1)] * 2), min_size=1, max_size=40))
    labels, predicted = np.array(pairs).T
    return classes, labels, predicted


def compare(classes: int, labels: np.ndarray, predicted: np.ndarray) -> None:
    names = [f"class {i}" for i in range(classes)]
    ours = evaluation_from_predictions(labels, predicted, names, loss=0.5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A single label was found", category=UserWarning)
        matrix = metrics.confusion_matrix(labels, predicted, labels=range(classes))
    np.testing.assert_array_equal(ours.confusion_matrix, matrix)
    assert ours.confusion_matrix.dtype == np.int64
    report = metrics.classification_report(
        labels, predicted, labels=range(classes), target_names=names, output_dict=True, zero_division=0
    )
    for entry in ours.per_class:
        theirs = report[entry.name]
        assert entry.support == theirs["support"]
        assert entry.precision == pytest.approx(theirs["precision"], rel=FLOAT64)
        assert entry.recall == pytest.approx(theirs["recall"], rel=FLOAT64)
        assert entry.f1 == pytest.approx(theirs["f1-score"], rel=FLOAT64)
    macro = report["macro avg"]
    assert ours.precision == pytest.approx(macro["precision"], rel=FLOAT64)
    assert ours.recall == pytest.approx(macro["recall"], rel=FLOAT64)
    assert ours.f1 == pytest.approx(macro["f1-score"], rel=FLOAT64)
    assert ours.accuracy == metrics.accuracy_score(labels, predicted)
    assert (ours.images, ours.classes, ours.loss) == (len(labels), tuple(names), 0.5)


@given(answers())
def test_every_number_is_that_of_scikit_learn(case: tuple[int, np.ndarray, np.ndarray]) -> None:
    compare(*case)


@pytest.mark.parametrize(
    ("classes", "labels", "predicted"),
    [
        (3, [0, 1, 2, 2], [0, 1, 1, 1]),  # class 2 is never predicted
        (3, [0, 0, 1], [0, 2, 1]),  # class 2 never occurs
        (4, [0, 1], [1, 0]),  # nothing right, two classes neither occur nor are predicted
        (1, [0], [0]),
    ],
)
def test_a_missing_class_counts_zero_as_in_scikit_learn(classes: int, labels: list, predicted: list) -> None:
    compare(classes, np.array(labels), np.array(predicted))


def test_rows_of_the_confusion_matrix_are_true_classes() -> None:
    found = evaluation_from_predictions(np.array([0, 0, 1]), np.array([1, 1, 1]), ["cat", "dog"])
    assert found.confusion_matrix.tolist() == [[0, 2], [0, 1]]
    assert found.per_class[1].precision == pytest.approx(1 / 3, rel=FLOAT64)
    assert found.per_class[1].recall == 1


def test_small_integer_types_do_not_overflow() -> None:
    labels = np.arange(200, dtype=np.uint8)
    found = evaluation_from_predictions(labels, labels, [str(i) for i in range(200)])
    assert found.accuracy == 1
    assert np.trace(found.confusion_matrix) == 200


def test_an_unknown_loss_is_nan() -> None:
    assert math.isnan(evaluation_from_predictions(np.array([0]), np.array([0]), ["only"]).loss)


def test_to_dict_is_plain_json_and_says_everything() -> None:
    found = evaluation_from_predictions(np.array([0, 0, 1]), np.array([0, 1, 1]), ["cat", "dog"], loss=0.25)
    data = json.loads(json.dumps(found.to_dict("validation")))
    assert data["split"] == "validation"
    assert found.to_dict()["split"] == "test"
    assert (data["images"], data["loss"], data["accuracy"]) == (3, 0.25, 2 / 3)
    assert data["classes"] == ["cat", "dog"]
    assert data["confusion_matrix"] == [[1, 1], [0, 1]]
    assert data["per_class"][0] == {"name": "cat", "precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 2}
    assert {"precision", "recall", "f1"} <= data.keys()


def test_the_printed_table_has_a_line_per_class_and_the_means() -> None:
    found = evaluation_from_predictions(np.array([0, 0, 1]), np.array([0, 1, 1]), ["cat", "a long name"], loss=0.25)
    lines = str(found).splitlines()
    assert [line.split("  ")[0].strip() for line in lines[1:4]] == ["cat", "a long name", "macro mean"]
    assert lines[1].split()[1:] == ["1.0000", "0.5000", "0.6667", "2"]
    assert lines[3].split()[2:] == ["0.7500", "0.7500", "0.6667", "3"]
    assert lines[-1] == "accuracy 66.67%, loss 0.2500"
    assert len({len(line) for line in lines[:-1]}) == 1


@pytest.mark.parametrize(
    ("labels", "predicted", "text"),
    [
        ([], [], r"at least one, got shapes \(0,\) and \(0,\)"),
        ([0, 1], [0], r"got shapes \(2,\) and \(1,\)"),
        ([[0, 1]], [[0, 1]], r"got shapes \(1, 2\)"),
        ([0, 2], [0, 1], "Expected classes 0 to 1, got 2; do pass a name for each class"),
        ([0, 1], [0, 5], "Expected classes 0 to 1, got 5"),
        ([0, -1], [0, 1], "Expected classes 0 to 1, got -1"),
        ([0, 1], [0, -3], "Expected classes 0 to 1, got -3"),
    ],
)
def test_impossible_answers_are_errors(labels: list, predicted: list, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        evaluation_from_predictions(np.array(labels, int), np.array(predicted, int), ["a", "b"])
