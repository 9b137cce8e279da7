"""Ctrl-C at any moment, seeds that are none, runs that diverged, data that are gone: codes and lines."""

import json
import shutil
import signal
from pathlib import Path

import pytest

from cnnlab import experiment
from cnnlab.cli import commands, main

REASON = "diverged in epoch 2 (training loss nan); do lower learning_rate (0.01)"


def begin_and_interrupt(*names):
    def fit(*_, out, **__):
        for name in names:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text("{}")
        raise KeyboardInterrupt

    return fit


@pytest.mark.parametrize("name", ["recipe.json", "seed-3/recipe.json"])
def test_ctrl_c_outside_the_training_loop_says_how_to_go_on(monkeypatch, capsys, name):
    monkeypatch.setattr(experiment, "fit", begin_and_interrupt(name))
    assert main(["train", "--out", "my run"]) == 130
    assert capsys.readouterr().err == "cnnlab: interrupted; go on with:  cnnlab resume 'my run'\n"


def test_ctrl_c_before_a_run_has_begun_leaves_nothing(monkeypatch, capsys):
    monkeypatch.setattr(experiment, "fit", begin_and_interrupt())
    assert main(["train"]) == 130
    assert capsys.readouterr().err == "cnnlab: interrupted\n"
    assert list(Path("runs").iterdir()) == []


def test_ctrl_c_while_a_run_is_resumed_says_how_to_go_on(finished, monkeypatch, capsys, tmp_path):
    shutil.copytree(finished.folder, "copy")
    Path("copy/result.json").unlink()

    def resume(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "resume", resume)
    assert main(["resume", "copy"]) == 130
    assert capsys.readouterr().err == "cnnlab: interrupted; go on with:  cnnlab resume copy\n"


def test_whatever_a_half_imported_package_makes_of_ctrl_c_is_no_traceback(monkeypatch, capsys):
    # A shell that starts the tests in the background has them ignore Ctrl-C.
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)

    def command():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("cannot import name 'x' from partially initialized module 'jax'") from None

    monkeypatch.setitem(commands.COMMANDS, "recipes", lambda: command)
    try:
        assert main(["recipes"]) == 130
        assert capsys.readouterr().err == "cnnlab: interrupted\n"
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)


@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_what_is_no_seed_exits_with_2_and_leaves_no_folder(capsys, seed):
    assert main(["train", "--seed", seed, "--out", "mine"]) == 2
    assert main(["train", "--seed", seed]) == 2
    errors = capsys.readouterr().err.splitlines()
    expected = f"cnnlab: Expected a whole number from 0 to 4294967295 for a seed, got {seed}; do choose another."
    assert errors == [expected] * 2
    assert not Path("mine").exists() and list(Path("runs").iterdir()) == []


@pytest.fixture
def diverged(finished, tmp_path) -> Path:
    """The finished run, as if it had diverged in its second epoch."""
    folder = shutil.copytree(finished.folder, tmp_path / "diverged")
    result = json.loads((folder / "result.json").read_text())
    (folder / "result.json").write_text(json.dumps({**result, "stop_reason": REASON, "evaluation": None}))
    return folder


def test_a_run_that_diverged_is_not_resumed_but_explained(diverged, capsys):
    assert main(["resume", "diverged"]) == 1
    assert capsys.readouterr().err == (
        f"cnnlab: Expected a run that can go on in diverged, got one that {REASON}, and train again.\n"
    )
    assert main(["report", "diverged"]) == 0
    assert capsys.readouterr().out == "report: diverged/report.html\n"
    assert main(["evaluate", "diverged"]) == 0  # the best network is there
    assert "accuracy" in capsys.readouterr().out
    shutil.rmtree(diverged / "checkpoints")
    assert main(["evaluate", "diverged"]) == 1
    assert f"got none, for the run {REASON}." in capsys.readouterr().err


def test_among_several_seeds_the_one_that_diverged_is_named(diverged, finished, tmp_path, capsys):
    shutil.move(diverged, tmp_path / "seeds" / "seed-0")
    shutil.copytree(finished.folder, tmp_path / "seeds" / "seed-1")
    assert main(["resume", "seeds", "--quiet"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"seed-0 is left as it is: it {REASON}" and "over 1 seeds on 500 test images" in lines[-2]
    assert main(["resume", "seeds"]) == 0
    assert capsys.readouterr().out.startswith(f"nothing to do: seeds is finished (completed all 2 epochs; {REASON})\n")


def test_a_report_without_the_data_says_what_is_missing(finished, capsys, tmp_path):
    copy = shutil.copytree(finished.folder, tmp_path / "copy")
    record = json.loads((copy / "recipe.json").read_text())
    record["dataset"]["request"] = "folder:/no/such/place?size=32"
    (copy / "recipe.json").write_text(json.dumps(record))
    assert main(["report", "copy", "--data-dir", "."]) == 0
    missing, page = capsys.readouterr().out.splitlines()
    assert missing.startswith("the mistakes are left out: Expected ") and page == "report: copy/report.html"
