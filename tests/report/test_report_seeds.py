"""Several seeds: mean, standard deviation, n, and every row."""

import csv
import json

import numpy as np
import pytest

from cnnlab.report import ReportError, write_report

ROWS = [
    {
        "seed": 0,
        "accuracy": 0.601,
        "best_accuracy": 0.602,
        "best_epoch": 4,
        "epochs": 6,
        "stop_reason": "converged",
    },
    {
        "seed": 2,
        "accuracy": 0.613,
        "best_accuracy": 0.614,
        "best_epoch": 4,
        "epochs": 7,
        "stop_reason": "all epochs",
    },
]
CLASSES = ["cat", "dog"]
MATRICES = {0: [[8, 2], [3, 7]], 2: [[9, 1], [5, 5]]}


@pytest.fixture(scope="module")
def seeds(make_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "seeds"
    for seed, matrix in MATRICES.items():
        make_run(folder / f"seed-{seed}", seed=seed, epochs=6 + seed // 2, classes=CLASSES, matrix=matrix)
    (folder / "notes").mkdir()
    accuracy = {"n": 2, "mean": 0.607, "std": 0.0086}
    (folder / "summary.json").write_text(json.dumps({"seeds": [0, 2], "rows": ROWS, "accuracy": accuracy}))
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(seeds, read_page):
    return read_page(seeds / "report.html")


def test_the_headline_gives_mean_deviation_and_number_of_seeds(page):
    assert "lenet reached 60.7 ± 0.9 % on the 20 test images of cifar10 (mean ± standard deviation" in page.text
    assert "over 2 seeds)." in page.text
    assert "60.70 ± 0.86 % mean ± std, n = 2" in page.text


def test_every_seed_has_its_row(page):
    assert "0 60.10 60.20 4 6 converged" in page.text
    assert "2 61.30 61.40 4 7 all epochs" in page.text
    assert "lowest to highest 60.1 to 61.3 %" in page.text


def test_classes_are_averaged_and_confusions_added_up(seeds, page):
    recalls = [100 * matrix[0][0] / 10 for matrix in MATRICES.values()]
    assert f"{np.mean(recalls):.1f} ± {np.std(recalls, ddof=1):.1f}" in page.text
    assert "dog was taken for cat 8 times in 20 (40.0 %)." in page.text
    with (seeds / "confusion_matrix.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [["cat", "17", "3"], ["dog", "8", "12"]]


def test_seeds_without_a_summary_are_summed_up_from_their_folders(make_run, read_page, tmp_path):
    for seed, matrix in {2: MATRICES[0], 10: MATRICES[2]}.items():
        make_run(tmp_path / f"seed-{seed}", seed=seed, classes=CLASSES, matrix=matrix)
    make_run(tmp_path / "seed-11", seed=11, epochs=3, finished=False)
    (tmp_path / "seed-2" / "report.html").write_text("")
    page = read_page(write_report(tmp_path))
    # 75 % and 70 %: mean 72.5, sample standard deviation 3.54
    assert "72.5 ± 3.5 % on the 20 test images of cifar10" in page.text
    assert "over 2 seeds; 1 seed of 3 still to finish" in page.text
    assert page.text.index("2 75.00") < page.text.index("10 70.00") < page.text.index("11 – 50.00 3 3 still running")
    assert "Seed 11: still running, or interrupted after epoch 3 of 100." in page.text
    assert f"cnnlab resume {tmp_path}/seed-11" in page.text
    assert [link for link in page.links if link.startswith("seed")] == ["seed-2/report.html"]


def test_a_damaged_seed_or_summary_is_named(make_run, tmp_path):
    make_run(tmp_path / "seed-0")
    (tmp_path / "summary.json").write_text('{"rows": [{"seed": "0"}]}')
    with pytest.raises(ReportError, match=r"each with its seed, under 'rows' in .*summary\.json, got \[\{"):
        write_report(tmp_path)
    (tmp_path / "summary.json").unlink()
    (tmp_path / "seed-0" / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(ReportError, match=r"under 'epoch' in .*seed-0/metrics\.jsonl, line 1, got null"):
        write_report(tmp_path)
