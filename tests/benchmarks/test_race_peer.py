"""The peer of the race: any script, in its own interpreter and folder, with one run a call or many."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs" / "race.md"
# The rows of the published scripts' tables, with numbers of our own: a warm-up, then two runs.
MANY = """
row = "|  {:>6}  |  {:>4}  |     0.9{}11  |   0.9{}22  |       0.9{}33  |        {:.4f}  |"
print("|  run     |  epoch  |  train_acc  |  val_acc  |  tta_val_acc  |  time_seconds  |")
for run, seconds in (("warmup", 39.5), (1, 2.25), (2, 2.75)):
    print(row.format(run, 7, 1, 2, 3, seconds - 0.5))
    print(row.format("", "eval", 1, 2, 3, seconds))
    print("Mean accuracy after this: 0.94 | Mean time: 1.234567s", end="\\r")
print("Mean: 0.9401    Std: 0.0014")
"""


@pytest.fixture
def chosen(room, tmp_path):
    """Return a function that writes a script and gives the peer of some options."""
    peers, script = room("race_peer"), tmp_path / "theirs" / "peer.py"
    script.parent.mkdir()

    def choose(text: str, *options: str) -> Any:
        script.write_text(text)
        parser = argparse.ArgumentParser()
        peers.add_peer_options(parser)
        return peers.chosen_peer(parser.parse_args(["--peer", str(script), *options]))

    return choose


def test_a_script_that_runs_once_is_one_run(chosen, tmp_path) -> None:
    peer = chosen("print('compiling: 9.9'); print('took 5.0 s')", "--peer-pattern", r"took ([0-9.]+) s")
    found = peer.run(tmp_path / "logs" / "peer.log")
    assert found["seconds"] == [5.0] and found["wall_seconds"] > 0
    assert (tmp_path / "logs" / "peer.log").read_text() == "compiling: 9.9\ntook 5.0 s\n"


def test_a_script_that_runs_many_times_gives_all_its_runs_but_the_warm_up(chosen, tmp_path) -> None:
    # The pattern of the page, on a table in the form of the published scripts.
    patterns = set(re.findall(r"--peer-pattern '(eval [^']+)'", DOCS.read_text(encoding="utf-8")))
    assert len(patterns) == 1
    peer = chosen(MANY, "--peer-pattern", *patterns, "--peer-warm-up", "1", "--peer-every", "2")
    assert peer.run(tmp_path / "peer.log")["seconds"] == [2.25, 2.75] and peer.every == 2
    everything = chosen(MANY, "--peer-pattern", *patterns)
    assert everything.run(tmp_path / "peer.log")["seconds"] == [39.5, 2.25, 2.75]


def test_without_a_pattern_the_whole_process_is_one_run(chosen, tmp_path) -> None:
    found = chosen("import time; time.sleep(0.2)").run(tmp_path / "peer.log")
    assert found["seconds"] == [found["wall_seconds"]] and found["wall_seconds"] > 0.2


def test_the_script_gets_its_interpreter_folder_and_arguments(chosen, tmp_path, monkeypatch) -> None:
    (tmp_path / "theirs" / "beside.txt").write_text("beside")
    (tmp_path / "their-python").symlink_to(sys.executable)  # as in a virtual environment: named from here, not resolved
    monkeypatch.chdir(tmp_path)
    text = "import sys; print(open('beside.txt').read(), sys.argv[1:], sys.executable, sys.orig_argv[0])"
    peer = chosen(text, "--peer-python", "./their-python", "--peer-args=--epochs 8 'a b'")
    peer.run(tmp_path / "peer.log")
    said = (tmp_path / "peer.log").read_text()
    assert said.startswith("beside ['--epochs', '8', 'a b'] ") and f"{tmp_path}{os.sep}their-python" in said


def test_what_makes_another_peer_is_among_the_settings(chosen) -> None:
    options = ("--peer-pattern", "([0-9]+)", "--peer-warm-up", "1", "--peer-every", "3", "--peer-args=--fast")
    one, other = chosen("1", *options).settings(), chosen("2", *options).settings()
    assert one.pop("sha256") != other.pop("sha256") and one == other
    version = ".".join(map(str, sys.version_info[:3]))
    assert one.pop("versions")["python"] == version
    facts = {"script": "peer.py", "arguments": ["--fast"], "pattern": "([0-9]+)", "warm_up": 1, "every": 3}
    assert one == facts


def test_a_script_that_fails_or_reports_nothing_is_one_line(chosen, room, tmp_path) -> None:
    error, log = room("measure").BenchmarkError, tmp_path / "peer.log"
    with pytest.raises(error, match="peer.py stopped: no GPU here"):
        chosen("print('begins'); raise SystemExit('no GPU here')").run(log)
    assert log.read_text() == "begins\nno GPU here\n"
    with pytest.raises(error, match=r"Expected more than 1 matches of 'took \(\.\+\) s' in .*peer.log, got 1; do look"):
        chosen("print('took 5.0 s')", "--peer-pattern", "took (.+) s", "--peer-warm-up", "1").run(log)
    with pytest.raises(error, match="Expected --peer-pattern to find numbers of seconds in .*peer.log, got: .*'long'"):
        chosen("print('took long')", "--peer-pattern", "took (.+)").run(log)
    with pytest.raises(error, match="Expected --peer-pattern to find numbers of seconds in .*peer.log, got: .*None"):
        chosen("print('took long')", "--peer-pattern", "took ([0-9]+)?").run(log)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--peer-pattern", "("), "Expected a regular expression as --peer-pattern, got: "),
        (("--peer-pattern", "took"), "Expected --peer-pattern with one group, that of the seconds, got 0 groups"),
        (("--peer-python", "no-such-python"), "Expected an interpreter at --peer-python, got 'no-such-python'"),
        (("--peer-every", "0", "--peer-pattern", "(.)"), "Expected --peer-every of at least 1 .* got 0 and 0"),
        (("--peer-every", "2"), "Expected --peer-pattern with --peer-every or --peer-warm-up, got none"),
        (("--peer-warm-up", "1"), "Expected --peer-pattern with --peer-every or --peer-warm-up, got none"),
    ],
    ids=["regex", "group", "python", "every", "every-alone", "warm-up-alone"],
)
def test_a_peer_that_cannot_be_is_refused_before_it_runs(chosen, room, options: tuple[str, ...], text: str) -> None:
    with pytest.raises(room("measure").BenchmarkError, match=text):
        chosen("", *options)


def test_an_interpreter_that_is_none_is_told(chosen, room, tmp_path) -> None:
    (tmp_path / "false").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "false").chmod(0o755)
    with pytest.raises(room("measure").BenchmarkError, match="Expected a Python interpreter at --peer-python, got "):
        chosen("", "--peer-python", str(tmp_path / "false")).settings()
