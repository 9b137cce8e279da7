"""`training_steps.py`: every network is the same on both sides, and the table says what was measured."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnnlab.models import summarize

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def module(room):
    """The script, imported as it runs."""
    return room("training_steps")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_each_network_has_as_many_parameters_as_its_twin_in_pytorch(module, device):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed; do: make torch")
    from torch_networks import torch_network

    for n in module.NETWORKS[device]:
        options = {key: value for key, value in n.model_options.items() if key != "image_size"}
        ours = summarize(n.name, num_classes=n.num_classes, image_size=n.image_size, **options)
        with torch.device("meta"):
            twin = torch_network(n.name, n.num_classes, image_size=n.image_size, **n.torch_options)
        assert sum(p.numel() for p in twin.parameters()) == ours.parameters


def entry(module, *speeds, error=None):
    contenders = {}
    for name, values in zip(("cnnlab", *module.PEERS), speeds, strict=True):
        contenders[name] = {"train_images_per_second": importlib.import_module("measure").summary(values)}
    speeds = dict(zip(contenders, speeds, strict=True))
    for name, ratio in importlib.import_module("measure").ratios(speeds, list(module.PEERS)).items():
        contenders[name]["ratio_to_best_torch"] = ratio
    if error:
        contenders["torch compile"] = {"error": error}
    return {"batch_size": 8, "image_size": 32, "target": 1.5, "contenders": contenders}


def test_the_table_has_the_ratio_to_the_better_of_pytorchs_two_and_the_aim(module):
    found = entry(module, [300, 330], [100, 110], [200, 220])
    lines = module.report({"networks": {"small": found}}).splitlines()
    assert lines[2].split() == "small, batch 8, 32 px cnnlab 315 300 330 1.50 (1.50 to 1.50) 1.5".split()
    assert "0.50 (0.50 to 0.50)" in lines[3] and "1.00 (1.00 to 1.00)" in lines[4]


def test_a_contender_that_fails_is_named_and_does_not_hide_the_others(module):
    found = entry(module, [300, 330], [100, 110], [200, 220], error="torch compile stopped: no compiler")
    lines = module.report({"networks": {"small": found}}).splitlines()
    assert len(lines) == 5 and lines[4].split()[:3] == ["torch", "compile", "failed"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "lenet6"], "Expected some of convnet4, resnet20, alexnet_cifar, resnet34, got lenet6."),
        (["--rounds", "0"], "Expected --rounds and --seconds above zero."),
    ],
    ids=["name", "rounds"],
)
def test_bad_options_are_one_line(module, arguments, message, monkeypatch):
    monkeypatch.setattr(module, "expect_torch", lambda: None)
    monkeypatch.setattr(module, "choose_device", lambda device: device)
    with pytest.raises(SystemExit) as stopped:
        module.main(["--device", "cpu", *arguments])
    assert stopped.value.code == f"training_steps.py: {message}"


@pytest.mark.slow  # compiles one network on both sides
def test_a_network_is_measured_from_end_to_end(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed; do: make torch")
    page = tmp_path / "page.md"
    page.write_text("<!-- training_steps_cpu: begin -->\n<!-- training_steps_cpu: end -->\n")
    command = [sys.executable, str(BENCHMARKS / "training_steps.py"), "--only", "convnet4", "--device", "cpu"]
    command += ["--rounds", "1", "--seconds", "0.01", "--threads", "1", "--out", str(tmp_path / "o.json")]
    done = subprocess.run(
        [*command, "--page", str(page)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "o.json").read_text())
    contenders = result["networks"]["convnet4"]["contenders"]
    assert {"cnnlab", "torch eager"} <= {n for n, found in contenders.items() if "error" not in found}
    assert contenders["cnnlab"]["ratio_to_best_torch"]["n"] == 1
    assert "convnet4, batch 128, 32 px" in page.read_text()
