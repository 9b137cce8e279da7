"""The benchmarks run, their statistics are right, and their JSON holds what benchmarks/README.md promises."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from cnnlab.models import list_models

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


def run_script(name, *arguments, code=None):
    """Run a benchmark, or code beside it, from the root of the repository."""
    command = [str(BENCHMARKS / name)] if code is None else ["-c", code]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )


def test_a_summary_agrees_with_numpy(room):
    values = list(np.random.default_rng(0).normal(5, 2, 8))
    found = room("measure").summary(values)
    assert found["n"] == 8 and found["values"] == values
    np.testing.assert_allclose(found["mean"], np.mean(values), rtol=1e-12)
    np.testing.assert_allclose(found["sd"], np.std(values, ddof=1), rtol=1e-12)
    np.testing.assert_allclose(found["median"], np.median(values), rtol=1e-12)
    assert (found["min"], found["max"]) == (np.min(values), np.max(values))


def test_one_value_has_no_standard_deviation_and_none_is_an_error(room):
    measure = room("measure")
    assert measure.summary([3.0])["sd"] is None
    with pytest.raises(measure.BenchmarkError, match="at least one measured value, got none"):
        measure.summary([])


def test_ratios_are_to_the_best_peer_of_the_same_round(room):
    values = {"ours": [30.0, 10.0, 24.0], "a": [10.0, 5.0, 6.0], "b": [5.0, 10.0, 8.0]}
    found = room("measure").ratios(values, ["a", "b"])
    best = np.maximum(values["a"], values["b"])
    assert found["ours"]["values"] == list(np.array(values["ours"]) / best)
    assert found["ours"]["median"] == 3.0
    assert found["a"]["values"] == [1.0, 0.5, 0.75]


def test_each_round_times_everyone_once_and_starts_with_another(room):
    orders = room("measure").rotated(["a", "b", "c"], 4)
    assert orders == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_more_threads_than_cpus_are_an_error(room):
    measure = room("measure")
    assert len(measure.cpus(1)) == 1
    with pytest.raises(measure.BenchmarkError, match="got 100000"):
        measure.cpus(100_000)


def test_a_table_aligns_its_columns(room):
    assert room("measure").table(["name", "n"], [["a", "1,000"], ["long name", "2"]]).splitlines() == [
        "name           n",
        "---------  -----",
        "a          1,000",
        "long name      2",
    ]


def test_startup_reads_the_last_line_only(room):
    startup = room("startup")
    assert startup.parse('a library talks\n{"seconds": 0.5}\n') == {"seconds": 0.5}
    for output in ("", "no JSON", "[1]", '{"seconds": 0.5}\nlast words'):
        with pytest.raises(room("measure").BenchmarkError, match="Expected a JSON object on the last line"):
            startup.parse(output)


def test_startup_times_a_fresh_interpreter_and_tells_when_it_fails(room):
    startup = room("startup")
    code = startup._IMPORT.format(before="import json", statement="import time; time.sleep(0.02)")
    assert 0.02 <= startup.run(code)["seconds"] < 10
    with pytest.raises(room("measure").BenchmarkError, match="ModuleNotFoundError: No module named 'nonsense'"):
        startup.run("import nonsense")


def test_the_loss_must_fall_and_the_network_must_be_the_thesis(room):
    step = room("lenet_step")
    images = step.STEPS_THAT_LEARN * 32
    answer = {"images": images, "seconds": 2.0, "parameters": 264_806, "compile_seconds": 1.0, "idle_cpu_seconds": 0.0}
    found = step.describe("ours", [{**answer, "loss": 2.3}, {**answer, "loss": 1.0}])
    assert found["images_per_second"]["values"] == [images / 2]
    for losses in ((1.0, 2.3), (2.3, 2.3), (2.3, float("nan"))):
        with pytest.raises(room("measure").BenchmarkError, match="loss of ours to fall"):
            step.describe("ours", [{**answer, "loss": loss} for loss in losses])
    with pytest.raises(room("measure").BenchmarkError, match="Expected 264806 parameters in ours, got 7"):
        step.describe("ours", [{**answer, "loss": 1.0, "parameters": 7}] * 2)


JAX_CONTENDERS = {"cnnlab", "cnnlab, no noise", "plain flax"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "contenders"),
    [
        (("--only", "cnnlab"), {"cnnlab"}),
        pytest.param((), JAX_CONTENDERS, marks=pytest.mark.slow),
    ],
)
def test_lenet_step_runs_without_torch_and_writes_all_it_documents(tmp_path, chosen, contenders):
    out = tmp_path / "folder" / "step.json"
    options = ("--device", "cpu", "--no-torch", "--steps", "3", "--rounds", "1", "--threads", "1", "--out", str(out))
    done = run_script("lenet_step.py", *options, *chosen)
    assert done.returncode == 0, done.stderr
    assert "images/s" in done.stdout and str(out) in done.stdout
    written = json.loads(out.read_text(encoding="utf-8"))
    assert set(written) == {"benchmark", "environment", "settings", "contenders"}
    numbers = {"rounds": 1, "steps": 3, "batch_size": 32, "threads": 1}
    assert written["settings"] == {"device": "cpu", "dtype": "float32", **numbers}
    kept = {"started", "command", "git_revision", "python", "jax", "flax", "torch", "cpu", "cpu_count"}
    assert kept <= set(written["environment"])
    assert set(written["contenders"]) == contenders
    for found in written["contenders"].values():
        assert found["parameters"] == 264_806
        assert found["images_per_second"]["n"] == 1 and found["images_per_second"]["median"] > 0
        assert len(found["losses"]) == 2 and np.isfinite(found["losses"]).all()


def test_a_missing_torch_is_one_line_that_tells_what_to_do(tmp_path):
    code = (
        "import importlib.util, sys; sys.path.insert(0, 'benchmarks'); real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'torch' else real(name, *more)\n"
        "import lenet_step; lenet_step.main(sys.argv[1:])"
    )
    out = tmp_path / "step.json"
    done = run_script("lenet_step.py", "--out", str(out), code=code)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("lenet_step.py: Expected PyTorch") and "pip install torch==2.13.0" in line
    assert not out.exists()


def test_a_contender_that_dies_is_named_with_its_last_words(room):
    measure = room("measure")
    worker = measure.Worker("nobody", "no_such_script.py", {})
    try:
        with pytest.raises(measure.BenchmarkError, match="nobody stopped: .*No such file"):
            worker.ask("warm up")
    finally:
        worker.close()


def test_a_contender_that_gives_no_answer_is_stopped(room, monkeypatch, tmp_path):
    measure = room("measure")
    monkeypatch.setattr(measure, "HERE", tmp_path)
    (tmp_path / "silent.py").write_text("import time; time.sleep(60)")
    worker, start = measure.Worker("sleeper", "silent.py", {}), time.monotonic()
    try:
        with pytest.raises(measure.BenchmarkError, match="sleeper stopped: no answer within 0.2 seconds"):
            worker.ask("run", limit=0.2)
    finally:
        worker.close()
    assert time.monotonic() - start < 30


def test_an_interrupted_write_leaves_the_old_file(room, monkeypatch, tmp_path):
    measure, path = room("measure"), tmp_path / "all.json"
    measure.write_json(path, "architectures", {"n": 1})
    before = path.read_text()

    def cut(self, text, **options):
        self.write_bytes(text[: len(text) // 2].encode())
        raise KeyboardInterrupt

    monkeypatch.setattr(type(path), "write_text", cut)
    with pytest.raises(KeyboardInterrupt):
        measure.write_json(path, "architectures", {"n": 2})
    assert path.read_text() == before


def test_a_network_without_a_twin_is_measured_alone_and_a_failure_is_the_last_turn(room, monkeypatch):
    module, asked = room("architectures"), []

    class Worker:
        def __init__(self, name, script, options):
            self.name = name

        def ask(self, request, *, limit):
            asked.append((self.name, request))
            if self.name == "torch" and twin == "fails" and request == "run":
                raise module.BenchmarkError("torch stopped: out of memory")
            return {"ready": self.name != "torch" or twin != "none", "turn": len(asked)}

        def close(self):
            asked.append((self.name, "close"))

    monkeypatch.setattr(module, "Worker", Worker)
    for twin, of_torch, turns in (("none", None, 0), ("fails", "torch stopped: out of memory", 1), ("there", 2, 2)):
        asked.clear()
        found = module.take_turns({side: (f"{side}.py", {}) for side in ("cnnlab", "torch")}, rounds=2)
        assert [answer["turn"] for answer in found["cnnlab"]] and len(found["cnnlab"]) == 2
        assert asked.count(("torch", "run")) == turns
        assert (len(found["torch"]) if twin == "there" else found.get("torch")) == of_torch
        assert asked[-2:] == [("cnnlab", "close"), ("torch", "close")]


def test_a_table_replaces_what_stood_between_the_markers_of_a_page(room, tmp_path):
    measure, page = room("measure"), tmp_path / "page.md"
    page.write_text("before\n<!-- speed: begin (by me) -->\nold\n<!-- speed: end -->\nafter\n")
    for text in ("first", "second"):
        measure.update_page(page, "speed", text)
    expected = "before\n<!-- speed: begin (by me) -->\n\n```\nsecond\n```\n\n<!-- speed: end -->\nafter\n"
    assert page.read_text() == expected
    with pytest.raises(measure.BenchmarkError, match="Expected the markers of width"):
        measure.update_page(page, "width", "text")


def test_a_table_for_a_page_is_markdown_and_stays_markdown(room, tmp_path):
    measure, page = room("measure"), tmp_path / "page.md"
    text = measure.markdown_table(["name", "n"], [["a|b", "1"], ["c", "2"]])
    assert text.splitlines() == ["| name | n |", "| --- | ---: |", "| a\\|b | 1 |", "| c | 2 |"]
    page.write_text("<!-- t: begin -->\n<!-- t: end -->\n")
    measure.update_page(page, "t", text, code=False)
    assert page.read_text() == f"<!-- t: begin -->\n\n{text}\n\n<!-- t: end -->\n"


def test_a_contender_with_another_network_or_no_loss_has_no_result(room):
    describe = room("architectures").describe
    facts = {"parameters": 7, "batch_size": 10}
    answer = {"forward_seconds": 0.5, "train_seconds": 2.0, "parameters": 7, "loss": 1.0, "peak_bytes": 3, "steps": {}}
    answer["idle_cpu_seconds"] = 0.0
    found = describe("torch", [answer, {**answer, "train_seconds": 1.0, "peak_bytes": 5}], facts)
    assert found["forward_images_per_second"]["values"] == [20, 20]
    assert found["train_images_per_second"]["values"] == [5, 10] and found["peak_bytes"] == 5
    assert describe("torch", "stopped: out of memory", facts) == {"error": "stopped: out of memory"}
    other = describe("torch", [{**answer, "parameters": 8}], facts)
    assert other == {"error": "Expected 7 parameters in torch, got 8."}
    assert "to be finite" in describe("torch", [{**answer, "loss": None}], facts)["error"]


def test_a_pass_runs_the_steps_that_fill_its_time(room):
    calls = []
    step = lambda: calls.append(0) or time.sleep(0.01)  # noqa: E731
    timed = room("architecture_task").Pass(step, lambda done: None, 0.05)
    assert 1 <= timed.steps <= 5 and len(calls) == 2  # one to warm up, one to find the number
    assert 0.01 <= timed() < 1 and len(calls) == 2 + timed.steps
    calls.clear()
    timed = room("architecture_task").Pass(step, lambda done: None, 0.001)
    assert timed.steps == len(calls) == 1  # the first step told enough


def test_a_pass_of_calls_of_several_steps_tells_the_seconds_of_one(room, monkeypatch):
    module, clock, calls = room("architecture_task"), [0.0], []

    def call():
        calls.append(0)
        clock[0] += 1.0

    monkeypatch.setattr(module.time, "perf_counter", lambda: clock[0])
    timed = module.Pass(call, lambda done: None, 2.5, steps_a_call=10)
    assert (timed.steps, len(calls)) == (30, 2)  # three calls last 2.5 seconds and more
    assert timed() == pytest.approx(0.1) and len(calls) == 5


def test_a_pass_prepares_once_however_many_steps_it_has(room):
    calls = []
    step = lambda: calls.append("step") or time.sleep(0.001)  # noqa: E731
    timed = room("architecture_task").Pass(step, lambda done: None, 0.01, lambda: calls.append("mode"))
    calls.clear()
    timed()
    assert calls == ["mode", *["step"] * timed.steps] and timed.steps > 1


def test_a_program_counts_what_it_shares_once(room):
    """Two arrays of 4,000 bytes go in, and their sum comes out: into the first, or into a third."""
    program_bytes = room("architectures_jax").program_bytes
    array = jax.ShapeDtypeStruct((1000,), np.float32)
    add = lambda a, b: a + b  # noqa: E731
    assert program_bytes(jax.jit(add, donate_argnums=0).lower(array, array).compile()) == 8000
    assert program_bytes(jax.jit(add).lower(array, array).compile()) == 12_000


def a_result(torch_compile=False, ratio=(2.0, 1.0, 4.0)):
    """The content of a JSON file in which one architecture was measured."""
    summary = lambda values: {"median": values[0], "min": values[1], "max": values[2]}  # noqa: E731
    side = {f"{kind}_images_per_second": summary([200, 100, 400]) for kind in ("forward", "train")}
    facts = {"image_size": 32, "batch_size": 64, "parameters": 10**6, "multiply_adds": 10**6}
    ours = {**side, "peak_bytes": 10**6, "compile_seconds": 1.0, "ratio_to_torch": summary(ratio)}
    environment = {"cpu": "CPU", "python": "3", "jax": "1", "flax": "1", "torch": "2", "started": "2026-01-01T00:00"}
    settings = {"device": "cpu", "threads": 2, "dtype": "float32", "rounds": 3, "torch_compile": torch_compile}
    return {
        "environment": environment,
        "settings": {**settings, "contenders": ["cnnlab", "torch"]},
        "architectures": {"net": {**facts, "cnnlab": ours, "torch": {**side, "peak_bytes": 10**6}}},
    }


@pytest.mark.parametrize(("torch_compile", "mode"), [(False, "eager"), (True, "compiled")])
def test_the_table_says_which_torch_it_is_against_and_how_far_the_ratio_varied(room, torch_compile, mode):
    report = room("architectures_report")
    page, terminal = (f(a_result(torch_compile)) for f in (report.markdown, report.overview))
    for text in (page, terminal):
        assert f"against {mode} torch" in text and "2.00 (1.00 to 4.00)" in text
    assert f"torch 2 ({mode})" in report.describe_run(a_result(torch_compile))  # which stands in the chart too
    assert "resident memory" in page and "![" not in page
    assert report.markdown(a_result(), "figures/a.png").endswith("(figures/a.png)")


def test_resuming_refuses_what_was_measured_under_other_facts(room, tmp_path):
    resume, path = room("architectures_resume"), tmp_path / "all.json"
    facts = resume.environment_facts()
    kinds = {"device_kind", "cpu", "jax", "torch", "revision", "code"}
    assert kinds <= set(facts)
    assert resume.earlier(path, {}, facts) == {}
    for key, other, told in (
        ("device_kind", "abacus", f"device_kind (abacus, now {facts['device_kind']})"),
        ("jax", "0.1", f"jax (0.1, now {facts['jax']})"),
        ("code", "0", "state of the code"),
        ("revision", "abc", None),  # the same code in another commit
    ):
        content = {"settings": {}, "architectures": {"mlp": {"measured_under": {**facts, key: other}}}}
        path.write_text(json.dumps(content))
        if told is None:
            assert set(resume.earlier(path, {}, facts)) == {"mlp"}
            continue
        with pytest.raises(room("measure").BenchmarkError, match=re.escape(f"got mlp with another {told}; do leave")):
            resume.earlier(path, {}, facts)


def architectures(*arguments, out):
    options = ("--no-torch", "--device", "cpu", "--threads", "1", "--rounds", "1", "--seconds", "0.01")
    return run_script("architectures.py", *options, "--out", str(out), *arguments)


@pytest.mark.slow
def test_architectures_measures_what_works_notes_what_fails_and_goes_on(tmp_path):
    out, page = tmp_path / "all.json", tmp_path / "models.md"
    page.write_text("<!-- architectures: begin -->\n<!-- architectures: end -->\n")
    small = ("--image-size", "8", "--batch", "4")
    done = architectures("--only", "lenet", "mlp", *small, out=out)  # lenet takes no images of 8 pixels
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written["settings"]["batch"] == 4 and "cpu" in written["environment"]
    lenet, mlp = written["architectures"]["lenet"], written["architectures"]["mlp"]
    assert "at least 16 pixels" in lenet["cnnlab"]["error"]
    assert mlp["parameters"] > 0 and mlp["multiply_adds"] > 0
    for key in ("forward_images_per_second", "train_images_per_second"):
        assert mlp["cnnlab"][key]["n"] == 1 and mlp["cnnlab"][key]["median"] > 0
    assert mlp["cnnlab"]["peak_bytes"] > 0 and mlp["cnnlab"]["compile_seconds"] > 0

    mlp["cnnlab"]["train_images_per_second"]["median"] = 123456  # kept, not measured again
    out.write_text(json.dumps(written))
    chart = tmp_path / "chart.png"
    wanted = ("--resume", "--page", str(page), "--chart", str(chart))
    again = architectures("--only", "mlp", *small, *wanted, out=out)
    assert again.returncode == 0, again.stderr
    assert "| mlp | 8 | " in page.read_text() and "| 123,456 |" in page.read_text()
    assert "| lenet | 8 | - | - | - | failed |" in page.read_text()
    assert chart.read_bytes().startswith(b"\x89PNG")
    marked = page.read_text().partition("<!-- architectures: begin -->")[2].partition("<!-- architectures: end -->")[0]
    assert marked.rstrip().endswith("](chart.png)")
    other = architectures("--only", "mlp", "--resume", out=out)
    assert other.returncode == 1 and "to be of the same settings" in other.stderr


def test_an_unknown_architecture_is_one_line(tmp_path):
    done = architectures("--only", "zebra*", out=tmp_path / "all.json")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "architectures.py: Expected names of architectures, got zebra*; do look at: cnnlab models."
    ]


def test_the_list_of_models_names_every_architecture():
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    listed = page.partition("<!-- model_list: begin")[2].partition("<!-- model_list: end")[0]
    missing = [name for name in list_models() if f"| `{name}` |" not in listed]
    assert not missing, f"run: python benchmarks/model_list.py docs/models.md  # {missing}"
