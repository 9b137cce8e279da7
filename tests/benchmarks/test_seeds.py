"""The benchmark of many seeds runs unattended and writes what benchmarks/README.md promises."""

import json
import os
import re
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
    options = ("--only", "lenet", "--seeds", "2", "--rounds", "2", "--steps", "2", "--threads", "1")
    done = run_script(*options, "--out", str(out), "--page", str(page))
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text(encoding="utf-8"))
    networks = {"lenet": {"steps": 2, "batch_size": 32}}
    assert written["settings"] == {"device": "cpu", "rounds": 2, "threads": 1, "networks": networks}
    found = written["networks"]["lenet"]
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
    assert "2 at once" in done.stdout and "lenet 2 of 32 images" in page.read_text() and str(out) in done.stdout


@pytest.mark.slow
def test_a_network_of_dense_convolutions_is_timed_in_batches_of_its_own(room):
    seeds = room("seeds")
    (resnet,) = (network for network in seeds.NETWORKS if network.name == "resnet20")
    found = seeds.measure(resnet._replace(batch_size=32), [1], rounds=1, steps=2)
    assert found["one seed"]["seeds"] == 1
    assert found["one seed"]["images_per_second"]["values"] == [2 * 32 / found["one seed"]["seconds"][0]]


def a_row(seeds, speed, seconds):
    summary = {"n": 1, "mean": speed, "sd": None, "median": speed, "min": speed, "max": speed, "values": [speed]}
    return {"seeds": seeds, "images_per_second": summary, "seconds": [seconds], "ratio_to_one_seed": summary}


@pytest.mark.parametrize(
    ("device", "file", "markers"), [("cpu", "seeds.json", "seeds"), ("gpu", "seeds_gpu.json", "seeds_gpu")]
)
def test_every_kind_of_device_has_a_file_and_a_table_of_its_own(
    room, monkeypatch, tmp_path, capsys, device, file, markers
):
    seeds, page = room("seeds"), tmp_path / "page.md"
    page.write_text(f"<!-- {markers}: begin -->\n<!-- {markers}: end -->\n")
    asked = []
    monkeypatch.setattr(seeds, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(seeds, "find_device", lambda: device)
    monkeypatch.setattr(
        seeds,
        "measure",
        lambda network, counts, **options: asked.append((network.name, options)) or {seeds.ONE: a_row(1, 7.0, 1.0)},
    )
    seeds.main(["--rounds", "3", "--page", str(page)])
    assert [path.name for path in (tmp_path / "results").iterdir()] == [file]
    steps = {"cpu": (200, 4), "gpu": (1000, 100)}[device]
    assert asked == [
        (name, {"rounds": 3, "steps": number}) for name, number in zip(("lenet", "resnet20"), steps, strict=True)
    ]
    assert list(json.loads((tmp_path / "results" / file).read_text())["networks"]) == ["lenet", "resnet20"]
    for text in (page.read_text(), capsys.readouterr().out):
        assert re.findall(r"^(\w+) +one seed ", text, flags=re.MULTILINE) == ["lenet", "resnet20"]


def test_impossible_numbers_are_one_line(tmp_path):
    done = run_script("--rounds", "0", "--out", str(tmp_path / "seeds.json"))
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["seeds.py: Expected --rounds, --steps and --seeds of at least 1."]
