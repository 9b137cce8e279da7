"""examples/cifar10_lenet.py as a person meets it: on a machine without CIFAR-10 and without a network."""

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "examples" / "cifar10_lenet.py"
SMALL = ("--epochs", "1", "--hidden", "8")
NOTICE = "*** Training on scikit-learn's digits instead: this is not the thesis' experiment. ***"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses at once: it is taken, and nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def run(tmp_path: Path, closed_port: int) -> Run:
    """Run the example in an empty folder, with an empty home, cache and $CNNLAB_DATA, behind a proxy that refuses."""
    names = {"HOME": "home", "CNNLAB_CACHE": "cache", "CNNLAB_DATA": "data", "TFDS_DATA_DIR": "tfds"}
    places = {variable: tmp_path / name for variable, name in names.items()}
    for place in (*places.values(), tmp_path / "work"):
        place.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {variable: str(place) for variable, place in places.items()}
    environment |= {"https_proxy": f"http://127.0.0.1:{closed_port}", "PYTHONPATH": str(ROOT)}

    def start(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(SCRIPT), *options]
        return subprocess.run(
            command, cwd=tmp_path / "work", env=environment, capture_output=True, text=True, timeout=600
        )

    return start


def test_without_cifar10_and_network_one_paragraph_tells_three_ways_to_get_it(run: Run, tmp_path: Path) -> None:
    done = run()
    assert (done.returncode, done.stdout) == (1, "")
    (paragraph,) = done.stderr.splitlines()
    assert paragraph.startswith(f"Expected CIFAR-10 in $CNNLAB_DATA {tmp_path / 'data'} (an empty folder), the cache ")
    assert all(way in paragraph for way in ("(1) try again", "(2) get https://", "--data-dir FOLDER", "(3) copy"))
    assert "refused" in paragraph, "the test met the proxy, not the network"
    assert list((tmp_path / "work").iterdir()) == [], "no run folder is begun"


@pytest.mark.slow
def test_with_the_fallback_it_trains_on_digits_says_so_and_keeps_to_the_held_out_protocol(run: Run, tmp_path) -> None:
    out = tmp_path / "out"
    protocol = ("--protocol", "held-out", "--seeds", "2", "--seed", "3")
    done = run("--fallback-digits", *SMALL, *protocol, "--out", str(out))
    assert (done.returncode, done.stderr) == (0, "")
    before, after = done.stdout.split(f"\n\n{NOTICE}\n\n")
    assert before.startswith("Expected CIFAR-10 in ") and "\n" not in before
    assert "lenet on digits" in after and f"report: {out / 'report.html'}" in after
    assert "seed 3: " in after and "seed 4: " in after and "accuracy over 2 seeds: " in after
    assert json.loads((out / "summary.json").read_text())["accuracy"]["n"] == 2
    for seed in (3, 4):
        recipe = json.loads((out / f"seed-{seed}" / "recipe.json").read_text())
        assert recipe["recipe"]["held_out"] == 129, "a tenth of the 1,297 training images of digits"
        assert recipe["dataset"]["train_images"] == 1297 - 129
        (epoch,) = (out / f"seed-{seed}" / "metrics.jsonl").read_text().splitlines()
        assert json.loads(epoch)["monitor"] == "validation", "the test images steer nothing"
        result = json.loads((out / f"seed-{seed}" / "result.json").read_text())
        assert (result["protocol"], result["evaluation"]["images"]) == ("held-out", 500)


@pytest.mark.slow
def test_one_seed_leaves_a_run_folder_with_a_report_in_runs(run: Run, tmp_path: Path) -> None:
    done = run("--fallback-digits", *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    assert NOTICE in done.stdout
    report = tmp_path / "work" / re.findall(r"^report: (runs/.*)$", done.stdout, flags=re.MULTILINE)[-1]
    assert report.read_text(encoding="utf-8").lstrip().startswith("<!")
    (epoch,) = report.with_name("metrics.jsonl").read_text().splitlines()
    assert json.loads(epoch)["monitor"] == "test", "in the thesis the test images steer"
