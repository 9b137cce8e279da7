"""What the runs of a race say together, and how finished ones are kept."""

import json
from pathlib import Path

import pytest

from cnnlab.training import get_recipe

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"


@pytest.fixture
def results(room):
    """The module, imported as the scripts do."""
    return room("race_results")


def a_run(seed: int, accuracy: float = 94.0, seconds: float = 2.0) -> dict[str, float]:
    return {"seed": seed, "seconds": seconds, "accuracy": accuracy, "accuracy_plain": accuracy - 1}


def test_the_p_value_is_that_of_students_test(results) -> None:
    values = [94.1, 94.0, 93.9, 94.2]
    # t = (mean - target) / (sd / sqrt(n)) = 0.05 / 0.06455 = 0.7746. With 3 degrees of freedom, x = t / sqrt(3), p is
    # 1/2 - (x / (1 + x^2) + arctan x) / pi.
    assert results.p_value(values, 94.0) == pytest.approx(0.2475, abs=5e-4)
    assert results.p_value(values, 93.5) < 0.01 < 0.99 < results.p_value(values, 94.6)
    assert results.p_value([94.1], 94.0) is None and results.p_value([94.1, 94.1], 94.0) is None


def test_one_run_decides_nothing(results) -> None:
    for accuracy in (93.0, 95.0):
        one = results.summarized([a_run(0, accuracy)], 94)
        assert one["reached"] is None and one["p_value"] is None
        assert "mean of 94 %: undecided, since one run says nothing about a mean" in results.report(one)
    two = results.summarized([a_run(0, 94.1), a_run(1, 94.3)], 94)
    assert two["reached"] is True and "mean of 94 %: reached (p = " in results.report(two)
    assert "not reached (p = " in results.report(results.summarized([a_run(0, 93.1), a_run(1, 94.3)], 94))


def test_the_ratio_to_the_peer_is_that_of_the_means_of_a_round(results) -> None:
    runs = [a_run(seed, seconds=seconds) for seed, seconds in enumerate([1.0, 3.0, 4.0])]
    # Round 0: 6 over the mean of 1 and 3; round 1: the mean of 10 and 30 over 4.
    rounds = [
        {"round": 0, "seconds": [6.0], "wall_seconds": 50.0},
        {"round": 1, "seconds": [10.0, 30.0], "wall_seconds": 60.0},
    ]
    peer = results.summarized(runs, 94, rounds, every=2)["peer"]
    assert peer["ratio"]["values"] == [3.0, 5.0] and peer["seconds"]["values"] == [6.0, 10.0, 30.0]
    assert peer["wall_seconds"]["mean"] == 55.0 and peer["rounds"] == rounds


def test_an_unfinished_line_is_ignored_and_does_not_spoil_the_next(results, tmp_path) -> None:
    path, settings = tmp_path / "runs.jsonl", {"a": (1, 2)}
    results.append_line(path, settings, {"seed": 0, "seconds": 1.0})
    with path.open("a") as file:
        file.write('{"seed": 1, "sec')
    assert results.read_finished(path, settings) == ([{"seed": 0, "seconds": 1.0}], [])
    results.append_line(path, settings, {"seed": 1, "seconds": 2.0})
    results.append_line(path, settings, {"round": 0, "seconds": [3.0]})
    found = results.read_finished(path, settings)
    assert found.runs == [{"seed": 0, "seconds": 1.0}, {"seed": 1, "seconds": 2.0}]
    assert found.rounds == [{"round": 0, "seconds": [3.0]}]


def test_settings_that_were_left_unfinished_are_written_again(results, tmp_path) -> None:
    path, settings = tmp_path / "runs.jsonl", {"target": 94}
    path.write_text('{"target": 9')
    results.append_line(path, settings, {"seed": 0})
    results.append_line(path, settings, {"seed": 1})
    assert results.read_finished(path, settings).runs == [{"seed": 0}, {"seed": 1}]
    assert path.read_text().count('"target"') == 2, "the unfinished line, and one whole"


def test_what_is_told_of_a_recipe_separates_no_runs_and_what_trains_does(room, results, tmp_path) -> None:
    path, recipe = tmp_path / "runs.jsonl", get_recipe("race94")
    results.append_line(path, {"recipe": recipe.to_dict(), "device": "cpu"}, {"seed": 0})
    told = recipe.replace(name="other", source="told otherwise", result="94 %")
    assert len(results.read_finished(path, {"recipe": told.to_dict(), "device": "cpu"}).runs) == 1
    older = {key: value for key, value in recipe.to_dict().items() if key != "target_train_accuracy"}
    assert len(results.read_finished(path, {"recipe": older, "device": "cpu"}).runs) == 1  # a field at its default
    for settings, differing in (
        ({"recipe": recipe.replace(crop=4).to_dict(), "device": "cpu"}, "recipe"),
        ({"recipe": {**recipe.to_dict(), "unknown": 1}, "device": "cpu"}, "recipe"),
        ({"recipe": recipe.to_dict(), "device": "gpu"}, "device"),
    ):
        with pytest.raises(room("measure").BenchmarkError, match=rf"got others \({differing}\); do add --fresh"):
            results.read_finished(path, settings)


def test_the_page_tells_device_peer_and_each_revision(results, tmp_path) -> None:
    codes = [("a" * 40, False), ("a" * 40, False), ("b" * 40, True)]
    runs = [
        {**a_run(seed), "code": {"revision": revision, "dirty": dirty, "jax": "0"}}
        for seed, (revision, dirty) in enumerate(codes)
    ]
    rounds = [{"round": number, "seconds": [seconds], "wall_seconds": 9.0} for number, seconds in enumerate([3.0, 5.0])]
    gpu = {"name": "NVIDIA T", "driver": "550.90", "power_limit_watts": 400.0}
    content = {
        "benchmark": "race",
        "environment": {
            "backend": "gpu",
            "device_kind": "NVIDIA T",
            "gpus": [gpu],
            "jax": "0",
            "started": "2030-01-02T",
        },
        "settings": {"recipe": {"name": "race94", "precision": "bfloat16"}, "peer": {"script": "theirs.py"}},
        **results.summarized(runs, 94, rounds, every=2),
        "petaflop": {"total": 0.36249},
    }
    content["environment"] |= {"jax": "0", "started": "2030-01-02T", "git_revision": "c" * 40, "git_dirty": False}
    (tmp_path / "race94_gpu.json").write_text(json.dumps(content))
    (tmp_path / "race94_gpu_quick.json").write_text(json.dumps(content))
    (tmp_path / "race94_gpu_profile.json").write_text(json.dumps({**content, "benchmark": "race_profile"}))
    line = results.page_table(tmp_path).splitlines()[2:]
    assert line == [
        "| `race94` | NVIDIA T, 400 W | 3 | 94.00 ± 0.00 % | 93.00 ± 0.00 % | - | 0.362 | 2.0 ± 0.0 | "
        "2.00 ± 0.71, `theirs.py` | "
        "bfloat16, jax 0, revision aaaaaaa and bbbbbbb with changes, 2030-01-02; `benchmarks/results/race94_gpu.json` |"
    ]


@pytest.mark.parametrize("name", ["race94_cpu", "race94_muon_cpu"])
def test_the_published_results_can_be_read_and_stand_on_the_page(results, name: str) -> None:
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    assert "undecided" in results.report(result) or result["accuracy"]["n"] > 1
    (line,) = [line for line in results.page_table(RESULTS).splitlines() if f"/{name}.json`" in line]
    assert line in (RESULTS.parents[1] / "docs" / "race.md").read_text(encoding="utf-8")
