"""Damaged folders: what is wrong is named by file and line; a kill while writing is no damage."""

import json

import pytest

from cnnlab.report import ReportError
from cnnlab.report.folder import RunRecord, read_folder


def read_run(folder) -> RunRecord:
    record = read_folder(folder)
    assert isinstance(record, RunRecord)
    return record


def test_a_folder_that_is_no_run_folder_is_an_error(tmp_path):
    with pytest.raises(ReportError, match=r"^Expected a run folder, got .*/none, which is no folder; give the --out"):
        read_folder(tmp_path / "none")
    with pytest.raises(ReportError, match=r"^Expected a run folder with recipe\.json or seed-0/recipe\.json, got "):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "recipe.json",
            b'{"model": {},\n "dataset"}',
            r"in .*recipe\.json, got line 2 that does not parse \(Exp",
        ),
        (
            "recipe.json",
            b"\xff\xfe",
            r"in .*recipe\.json, got a file that does not parse \(UnicodeDecodeError\)",
        ),
        (
            "recipe.json",
            b"[" * 100_000,
            r"in .*recipe\.json, got a file that does not parse \(RecursionError\)",
        ),
        ("recipe.json", b'{"model": "lenet"}', r"an object under 'model' in .*recipe\.json, got \"lenet\"; "),
        ("environment.json", b"[1]", r"a JSON object in .*environment\.json, got \[1\]; "),
        (
            "metrics.jsonl",
            b'{"epoch": 1}\n{"ep\n{"epoch": 3}\n',
            r"in .*metrics\.jsonl, got line 2 that does not p",
        ),
        ("metrics.jsonl", b'{"epoch": 1}\n{"ep\n', r"in .*metrics\.jsonl, got line 2 that does not parse "),
        ("metrics.jsonl", b'{"epoch": 0}\n', r"a positive whole number under 'epoch' in .*, line 1, got 0; "),
        (
            "metrics.jsonl",
            b'{"epoch": 1, "loss": "low"}\n',
            r"null under 'loss' in .*, line 1, got \"low\"; ",
        ),
        ("metrics.jsonl", b"\n7\n", r"a JSON object in .*metrics\.jsonl, line 2, got 7; "),
        ("result.json", b'{"evaluation": 3}', r"an object under 'evaluation' in .*result\.json, got 3; "),
        (
            "result.json",
            b'{"evaluation": {"classes": ["a", "b"], "confusion_matrix": [[1, 2]]}}',
            r"a confusion matrix of 2 x 2 counts, one row .*result\.json, got \[\[1, 2\]\]; ",
        ),
        (
            "result.json",
            b'{"evaluation": {"classes": ["a"], "confusion_matrix": [[-1]]}}',
            r"of 1 x 1 counts",
        ),
        ("result.json", b'{"evaluation": {"per_class": [1]}}', r"a list of objects under 'per_class' in "),
    ],
)
def test_a_damaged_file_is_named_in_one_line(make_run, tmp_path, name, content, message):
    folder = make_run(tmp_path / "run")
    (folder / name).write_bytes(content)
    with pytest.raises(ReportError, match=r"^Expected .*" + message) as caught:
        read_folder(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_file_too_large_for_a_run_is_not_read(make_run, tmp_path):
    folder = make_run(tmp_path / "run")
    with (folder / "metrics.jsonl").open("wb") as file:
        file.truncate(2**30)  # sparse: takes no room
    with pytest.raises(ReportError, match=r"metrics\.jsonl below 67,108,864 bytes, got 1,073,741,824"):
        read_folder(folder)


@pytest.mark.parametrize("tail", [b'{"epoch": 8, "trai', b'{"epoch": 8, "x": "\xc3', b"\0\0\0\0"])
def test_a_torn_last_line_is_left_out_and_remembered(make_run, tmp_path, tail):
    folder = make_run(tmp_path / "run", finished=False)
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(tail)
    run = read_run(folder)
    assert run.torn
    assert [line["epoch"] for line in run.history] == [1, 2, 3, 4, 5, 6, 7]


def test_a_complete_last_line_without_its_line_feed_counts(make_run, tmp_path):
    folder = make_run(tmp_path / "run", finished=False)
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    run = read_run(folder)
    assert not run.torn
    assert len(run.history) == 7


def test_an_epoch_trained_again_after_a_resume_counts_once_as_last_written(make_run, tmp_path):
    folder = make_run(tmp_path / "run", finished=False)
    with (folder / "metrics.jsonl").open("a") as file:
        file.writelines(json.dumps({"epoch": epoch, "accuracy": 0.9}) + "\n" for epoch in (6, 7, 8))
    history = read_run(folder).history
    assert [line["epoch"] for line in history] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [line["accuracy"] for line in history[4:]] == [0.5, 0.9, 0.9, 0.9]
