"""`lenet_step.py` on each kind of device: what the contenders are asked, and where the result goes."""

import json

import pytest


@pytest.mark.parametrize(
    ("device", "name", "dtype", "steps"),
    [("cpu", "lenet_step", "float32", 500), ("gpu", "lenet_step_gpu", "bfloat16", 2000)],
)
def test_a_result_of_one_kind_of_device_does_not_take_the_place_of_another(
    room, monkeypatch, tmp_path, capsys, device, name, dtype, steps
):
    step, page, asked = room("lenet_step"), tmp_path / "page.md", []
    page.write_text(f"<!-- {name}: begin -->\n<!-- {name}: end -->\n")

    class Worker:
        def __init__(self, name, script, options):
            asked.append((name, script, options))

        def ask(self, request):
            images = 32 * steps
            answer = {"images": images, "seconds": 2.0, "parameters": 264_806, "compile_seconds": 1.0}
            losses.append(losses[-1] - 0.1)
            return {**answer, "idle_cpu_seconds": 0.0, "loss": losses[-1], "failed_ways": {"fused": "no"}}

        def close(self): ...

    losses = [2.3]
    monkeypatch.setattr(step, "Worker", Worker)
    monkeypatch.setattr(step, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(step, "choose_device", lambda wanted: {"auto": device}[wanted])
    step.main(["--rounds", "2", "--threads", "1", "--only", "cnnlab", "torch compile", "--page", str(page)])
    assert [(name, script) for name, script, _ in asked] == [
        ("cnnlab", "lenet_jax.py"),
        ("torch compile", "lenet_torch.py"),
    ]
    for _, _, options in asked:
        assert (options["device"], options["dtype"], options["steps"]) == (device, dtype, steps)
    assert [path.name for path in (tmp_path / "results").iterdir()] == [f"{name}.json"]
    written = json.loads((tmp_path / "results" / f"{name}.json").read_text(encoding="utf-8"))
    assert written["contenders"]["cnnlab"]["ratio_to_best_torch"]["median"] == 1.0
    assert written["contenders"]["torch compile"]["failed_ways"] == {"fused": "no"}
    assert (
        dtype in page.read_text() and "torch compile" in page.read_text() and "torch compile" in capsys.readouterr().out
    )


def test_on_a_gpu_torch_tries_cuda_graphs_too(room):
    torch = pytest.importorskip("torch")
    ways = room("lenet_torch").ways
    kinds = {kind: [*ways("torch compile", torch.device(kind))] for kind in ("cpu", "cuda")}
    assert kinds["cuda"][: len(kinds["cpu"])] == kinds["cpu"] and "one graph" in kinds["cpu"]
    assert [way for way in kinds["cuda"] if way not in kinds["cpu"]] == [
        "fused, noise inside, CUDA graphs",
        "one graph, CUDA graph",
    ]
