"""`training_steps.py`: every network is the same on both sides, and the table says what was measured."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

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


class Tiny(nnx.Module):
    """A convolution without padding and a linear layer."""

    def __init__(self, in_channels, channels, side, dtype=None):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(in_channels, channels, (3, 3), padding="VALID", dtype=dtype, rngs=rngs)
        self.head = nnx.Linear((side - 2) ** 2 * channels, 5, dtype=dtype, rngs=rngs)

    def __call__(self, images):
        return self.head(jax.nn.relu(self.conv(images)).reshape(len(images), -1))


# From 3 x 6 x 6 to 4 x 4 x 4 numbers by 27 products each, and from these 64 numbers to 5 classes.
CONV, LINEAR, PARAMETERS, OUTPUTS = 64 * 27, 64 * 5, (27 * 4 + 4) + (64 * 5 + 5), 64 + 5


@pytest.mark.parametrize(("dtype", "width"), [(None, 4), (jnp.bfloat16, 2)], ids=["float32", "bfloat16"])
def test_operations_and_bytes_of_a_step_are_those_counted_by_hand(room, dtype, width):
    work = room("roofline").count_work(summarize(Tiny(3, 4, 6, dtype), image_size=6), 7)
    assert work.operations == 7 * 2 * (2 * CONV + 3 * LINEAR)  # no gradient of the images
    images, outputs, parameters = 2 * 3 * 6 * 6, 5 * OUTPUTS * width, 8 * PARAMETERS * 4
    assert work.bytes == 7 * (images + outputs) + parameters


def test_xlas_count_of_plain_convolutions_without_loops_is_ours_and_a_little_for_the_rest(room):
    network, side, batch = Tiny(16, 32, 12), 12, 8
    ours = room("roofline").count_work(summarize(network, image_size=side, in_channels=16), batch).operations
    graph, parameters = nnx.split(network)

    def loss(parameters, images):
        return (nnx.merge(graph, parameters)(images) ** 2).sum()

    images = jnp.zeros((batch, side, side, 16))
    account = jax.jit(jax.grad(loss)).lower(parameters, images).cost_analysis()
    assert account and ours < account["flops"] < 1.02 * ours  # ReLU, biases and loss


def test_the_peaks_of_a_round_are_several_passes_of_a_product_and_of_a_copy(room):
    measure = room("measure")
    options = {"cpus": measure.cpus(1), "dtype": "bfloat16", "side": 32, "array_bytes": 2**16}
    worker = measure.Worker("peaks", room("roofline").SCRIPT, options)
    try:
        assert worker.ask("warm up")["ready"]
        answer = worker.ask("run")
    finally:
        worker.close()
    for kind in ("product", "copy"):
        assert len(answer[kind]) == 5 and all(0 < seconds < 1 for seconds in answer[kind])


def rounds_of(speed, rounds=2):
    return [
        {"forward_seconds": 1.0, "train_seconds": batch / speed, "parameters": 89_578, "loss": 2.3, "peak_bytes": 1}
        | {"idle_cpu_seconds": 0.0, "steps": {}}
        for batch in [128] * rounds
    ]


def measured(module, monkeypatch, **changes):
    """`measure` of the smallest network where each contender gives the answers of a machine that exists on paper."""
    # product 2 * 2560**3 operations, copy 2**29 bytes: 2 Tflop/s, then half of it; always 2**33 bytes/s
    product = 2 * 2560**3 / 2e12
    peaks = [{"product": [t, 3 * t, 2 * t], "copy": [1 / 16, 1 / 8, 1 / 8]} for t in (product, 2 * product)]
    answers = {"cnnlab": rounds_of(12_800), "torch eager": rounds_of(1), "torch compile": rounds_of(1), "peaks": peaks}
    answers |= changes
    monkeypatch.setattr(module, "take_turns", lambda contenders, rounds: {name: answers[name] for name in contenders})
    settings = {"seconds": 1, "threads": 1, "device": "cpu", "dtype": "float32", "rounds": 2}
    return module.measure(module.NETWORKS["cpu"][0], settings)


def test_a_share_is_the_rate_over_the_best_of_the_peak_in_the_same_round(module, monkeypatch):
    found = measured(module, monkeypatch)
    assert list(found["contenders"]) == ["cnnlab", *module.PEERS]
    roof = found["roofline"]
    # 12,298,240 multiply-adds, of which the first layer 2,457,600; 100 steps a second
    assert roof["operations"] == 2 * 128 * (3 * 12_298_240 - 2_457_600)
    assert roof["operations_per_second"]["values"] == pytest.approx([100 * roof["operations"]] * 2, rel=1e-12)
    assert roof["peaks"]["product"]["best"]["values"] == pytest.approx([2e12, 1e12], rel=1e-12)
    assert roof["peaks"]["product"]["median"]["values"] == pytest.approx([1e12, 0.5e12], rel=1e-12)
    shares = [100 * roof["operations"] / peak for peak in (2e12, 1e12)]
    assert roof["product_share"]["values"] == pytest.approx(shares, rel=1e-12)
    assert roof["copy_share"]["median"] == pytest.approx(100 * roof["bytes"] / 2**33, rel=1e-12)
    assert roof["bound"] == "memory"
    json.dumps(roof, allow_nan=False)


@pytest.mark.parametrize(
    ("product", "copy", "bound"),
    [(0.7, 0.5, "arithmetic"), (0.5, 0.7, "memory"), (0.39, 0.38, "neither (overheads)"), (0.4, 0.1, "arithmetic")],
    ids=["arithmetic", "memory", "neither", "just arithmetic"],
)
def test_the_nearer_roof_bounds_a_step_unless_both_are_far(room, product, copy, bound):
    assert room("roofline").name_bound(product, copy) == bound


def test_the_roofline_has_a_row_for_each_network_and_the_peaks_below(module, monkeypatch):
    found = measured(module, monkeypatch)
    lines = module.roofline_table({"networks": {"convnet4": found}}).splitlines()
    # 8.816 GFLOP and 0.1190 GB a step; 0.8816 / 2 and 0.8816 / 1 of the product, 11.90 / 8.59 of the copy
    assert lines[2].split() == "convnet4 8.8 882 66 % 0 % 0.12 11.9 139 % memory".split()
    expected = "matrix product of 2560 x 2560: 1,500 GFLOP/s; copy of 256 MiB, read and written: 8.6 GB/s"
    assert lines[3:] == ["", expected]


def test_the_share_at_the_aim_is_what_the_step_reaches_times_how_far_it_is_from_the_aim(room):
    ours = {"ratio_to_best_torch": {"values": [0.5, 0.4]}}
    share = {"product_share": {"values": [0.4, 0.4], "median": 0.4}}
    entry = {"target": 1.5, "contenders": {"cnnlab": ours}, "roofline": share}
    line = room("roofline").roofline_table({"networks": {"net": entry}}).splitlines()[2]
    assert line.split()[:7] == ["net", "-", "-", "40", "%", "135", "%"]  # 0.4 * 1.5 / 0.5 and / 0.4: 120 and 150 %


def test_a_roofline_without_peaks_or_steps_has_dashes_and_so_has_an_older_result(module, monkeypatch):
    no_peaks = measured(module, monkeypatch, peaks="peaks stopped: out of memory")
    no_steps = measured(module, monkeypatch, cnnlab="cnnlab stopped: killed")
    assert no_peaks["roofline"]["peaks"] == {"error": "peaks stopped: out of memory"}
    older = entry(module, [300, 330], [100, 110], [200, 220])
    result = {"networks": {"a": no_peaks, "b": no_steps, "c": older}}
    lines = module.roofline_table(result).splitlines()
    assert [line.split() for line in lines[2:5]] == [
        "a 8.8 882 - - 0.12 11.9 - -".split(),
        "b 8.8 - - - 0.12 - - -".split(),
        "c - - - - - - - -".split(),
    ]
    assert len(module.report(result).splitlines()) == 2 + 3 * 3
    assert len(module.roofline_table({"networks": {"c": older}}).splitlines()) == 3


@pytest.mark.parametrize(("device", "name"), [("cpu", "training_steps"), ("gpu", "training_steps_gpu")])
def test_a_result_of_one_kind_of_device_does_not_take_the_place_of_another(module, monkeypatch, tmp_path, device, name):
    monkeypatch.setattr(module, "expect_torch", lambda **_: None)
    monkeypatch.setattr(module, "choose_device", lambda wanted: device)
    monkeypatch.setattr(module, "RESULTS", tmp_path)
    found = measured(module, monkeypatch)
    monkeypatch.setattr(module, "measure", lambda network, settings: found)
    module.main(["--only", "resnet20"])
    assert [path.name for path in tmp_path.iterdir()] == [f"{name}.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "lenet6"], "Expected some of convnet4, resnet20, alexnet_cifar, resnet34, got lenet6."),
        (["--rounds", "0"], "Expected --rounds and --seconds above zero."),
    ],
    ids=["name", "rounds"],
)
def test_bad_options_are_one_line(module, arguments, message, monkeypatch):
    monkeypatch.setattr(module, "expect_torch", lambda **_: None)
    monkeypatch.setattr(module, "choose_device", lambda device: device)
    with pytest.raises(SystemExit) as stopped:
        module.main(["--device", "cpu", *arguments])
    assert stopped.value.code == f"training_steps.py: {message}"


@pytest.mark.slow  # compiles one network on both sides
def test_a_network_is_measured_from_end_to_end(tmp_path):
    pytest.importorskip("torch", reason="PyTorch is not installed; do: make torch")
    page = tmp_path / "page.md"
    names = ("training_steps_cpu", "roofline_cpu")
    page.write_text("".join(f"<!-- {name}: begin -->\n<!-- {name}: end -->\n" for name in names))
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
    assert 0 < result["networks"]["convnet4"]["roofline"]["product_share"]["median"] < 1
    contenders = result["networks"]["convnet4"]["contenders"]
    assert {"cnnlab", "torch eager"} <= {n for n, found in contenders.items() if "error" not in found}
    assert contenders["cnnlab"]["ratio_to_best_torch"]["n"] == 1
    assert "convnet4, batch 128, 32 px" in page.read_text() and "of product" in page.read_text()
