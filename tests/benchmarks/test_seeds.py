"""The benchmark of many seeds runs unattended and writes what benchmarks/README.md promises."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run_script(*arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "seeds.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.slow
def test_seeds_are_timed_at_once_and_one_after_the_other(tmp_path):
    out, page = tmp_path / "folder" / "seeds.json", tmp_path / "page.md"
    page.write_text("<!-- seeds: begin -->\n<!-- seeds: end -->\n")
    options = ("--seeds", "2", "--rounds", "2", "--steps", "2", "--threads", "1")
    done = run_script(*options, "--out", str(out), "--page", str(page))
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["settings"] == {"rounds": 2, "steps": 2, "batch_size": 32, "threads": 1}
    found = written["contenders"]
    assert list(found) == ["one seed", "2 at once", "2 one after the other"]
    for name, row in found.items():
        assert row["seeds"] == (1 if name == "one seed" else 2)
        images = row["seeds"] * 2 * 32
        assert row["images_per_second"]["values"] == [images / seconds for seconds in row["seconds"]]
        assert len(row["losses"]) == 3 * row["seeds"]  # a pass to warm up and two rounds
    ours, other, one = (
        found[name]["images_per_second"]["values"] for name in ("2 at once", "2 one after the other", "one seed")
    )
    assert found["2 at once"]["ratio_to_one_after_the_other"]["values"] == [
        a / b for a, b in zip(ours, other, strict=True)
    ]
    assert found["2 at once"]["ratio_to_one_seed"]["values"] == [a / b for a, b in zip(ours, one, strict=True)]
    assert "2 at once" in done.stdout and "2 at once" in page.read_text() and str(out) in done.stdout


def test_impossible_numbers_are_one_line(tmp_path):
    done = run_script("--rounds", "0", "--out", str(tmp_path / "seeds.json"))
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["seeds.py: Expected --rounds, --steps and --seeds of at least 1."]
