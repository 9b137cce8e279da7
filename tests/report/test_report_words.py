"""Numbers said in words."""

import math

import pytest

from cnnlab.report import confused_pairs
from cnnlab.report.words import best_of, count, duration, headline, mean_and_std, percent, plural, rate


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (percent(0.604), "60.4 %"),
        (percent(None), "–"),
        (percent(math.nan), "–"),
        (percent(True), "–"),
        (count(264806), "264,806"),
        (plural(1, "epoch"), "1 epoch"),
        (plural(57, "epoch"), "57 epochs"),
        (rate(0.01), "0.01"),
        (rate(0.001), "1e-3"),
        (rate(1.0000000000000002e-06), "1e-6"),
        (rate(0.00025), "2.5e-4"),
        (duration(9.96), "10.0 s"),
        (duration(734.2), "12 min 14 s"),
        (duration(3599.9), "1 h 0 min"),
        (mean_and_std({"n": 5, "mean": 0.6, "std": 0.004}), "60.0 ± 0.4 %"),
        (mean_and_std({"n": 1, "mean": 0.6, "std": 0.0}), "60.0 %"),
        (mean_and_std({"n": 1, "mean": 0.6, "std": None}), "60.0 %"),
    ],
)
def test_a_number_reads_as_a_person_would_write_it(said, expected):
    assert said.replace("\u00a0", " ") == expected


def test_the_best_epoch_is_the_recorded_one_or_the_latest_of_the_highest():
    lines = [{"epoch": 1, "accuracy": 0.5}, {"epoch": 2, "accuracy": 0.6}, {"epoch": 3, "accuracy": 0.6}]
    assert best_of(lines) == (3, 0.6)
    assert best_of([*lines, {"epoch": 4, "accuracy": None}]) == (3, 0.6)
    assert best_of([*lines, {"epoch": 4, "accuracy": 0.1, "best_epoch": 2, "best_accuracy": 0.6}]) == (2, 0.6)
    assert best_of([]) == (None, None)


def test_a_result_without_an_evaluation_still_has_a_headline():
    said = headline("mlp", "digits", [], {"epochs": 1, "best_epoch": 1, "best_accuracy": 0.9}, 1)
    assert said.replace("\u00a0", " ") == "mlp reached 90.0 % on digits after 1 epoch; best at epoch 1."


def test_confused_pairs_leave_out_hits_and_pairs_that_never_occur():
    matrix = [[90, 0, 4], [0, 50, 0], [4, 7, 60]]
    assert confused_pairs(matrix, ["a", "b", "c"], top=5) == [
        ("c", "b", 7, 71),
        ("a", "c", 4, 94),
        ("c", "a", 4, 71),
    ]
    assert confused_pairs([[3, 0], [0, 3]], ["a", "b"]) == []
