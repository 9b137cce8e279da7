"""The race: what it trains is what `cnnlab.fit` trains, its statistics are right, and finished runs are kept."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.data import dataset_from_arrays
from cnnlab.evaluation import evaluate
from cnnlab.training import get_recipe

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
OPTIONS: dict[str, Any] = {"widths": [3, 4, 5]}


@pytest.fixture(scope="module")
def room():
    """Return a function that imports a module of benchmarks/ as the scripts do, from their own folder."""
    names = [path.stem for path in BENCHMARKS.glob("*.py")]
    kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module
    sys.path.remove(str(BENCHMARKS))
    for name in names:
        sys.modules.pop(name, None)
    sys.modules.update(kept)


@pytest.fixture(scope="module")
def data() -> Any:
    """Small images that a class brightens in one place."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 150).astype(np.int32)
    images = rng.integers(0, 200, (150, 10, 10, 3), np.uint8)
    images[np.arange(150), labels] += 50
    return dataset_from_arrays(images[:100], labels[:100], images[100:], labels[100:], classes=[*"abcdefghij"])


def a_racer(room: Any, data: Any, name: str) -> tuple[Any, list[str], dict[str, Any]]:
    """A racer over two epochs of three steps, what it will say, and how its network is built."""
    recipe = get_recipe(name).replace(epochs=2, batch_size=30, warmup_epochs=0.5 if name == "race94" else 0)
    options, said = {**room("race_run").ENTRIES[name].options, **OPTIONS}, []
    return room("race_run").Racer(recipe, options, data, said.append), said, options


@pytest.mark.slow
def test_a_run_depends_on_its_seed_alone_and_tells_where_the_time_went(room, data) -> None:
    racer, said, _ = a_racer(room, data, "race94")
    assert racer.warm_up() > 0
    found = racer.run(3)
    parts = found["prepare_seconds"] + found["train_seconds"] + found["evaluate_seconds"]
    assert found["seconds"] == pytest.approx(parts, abs=1e-6) and min(found.values()) > 0
    assert any("epoch 2 of 2, step 3 of 3: loss" in line for line in said)
    assert racer.run(3)["train_loss"] == found["train_loss"] != racer.run(4)["train_loss"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["race94", "race94-muon"])
def test_a_run_is_what_fit_trains_with_the_same_recipe_and_seed(room, data, name: str) -> None:
    racer, _, options = a_racer(room, data, name)
    racer.warm_up()
    found = racer.run(3)
    fitted = cnnlab.fit("cifarnet", data, racer.recipe, seed=3, model_options=options, progress=False)
    last = fitted.history[-1]
    # The same steps in the same programs.
    assert found["train_loss"] == last["train_loss"]
    assert found["accuracy_plain"] == pytest.approx(100 * last["accuracy"], abs=1e-9)
    augmented = evaluate(fitted.last.model, data.test, test_time_augmentation="multi-crop")
    assert found["accuracy"] == pytest.approx(100 * augmented.accuracy, abs=1e-9)


def test_the_network_computes_in_the_precision_of_the_recipe(room, data) -> None:
    for precision in ("float32", "bfloat16"):
        recipe = get_recipe("race94").replace(batch_size=30, precision=precision)
        racer = room("race_run").Racer(recipe, OPTIONS, data, print)
        logits = nnx.eval_shape(lambda racer=racer: racer._network(0)(jnp.zeros((1, 10, 10, 3))))
        assert logits.dtype == precision


def test_a_batch_larger_than_the_data_is_an_error(room, data) -> None:
    with pytest.raises(room("measure").BenchmarkError, match="Expected a batch of 1024 training images, got 100"):
        room("race_run").Racer(get_recipe("race94"), OPTIONS, data, print)


def test_the_p_value_is_that_of_students_test(room) -> None:
    results = room("race_results")
    values = [94.1, 94.0, 93.9, 94.2]
    # t = (mean - target) / (sd / sqrt(n)) = 0.05 / 0.06455 = 0.7746. With 3 degrees of freedom, x = t / sqrt(3), p is
    # 1/2 - (x / (1 + x^2) + arctan x) / pi.
    assert results.p_value(values, 94.0) == pytest.approx(0.2475, abs=5e-4)
    assert results.p_value(values, 93.5) < 0.01 < 0.99 < results.p_value(values, 94.6)
    assert results.p_value([94.1], 94.0) is None and results.p_value([94.1, 94.1], 94.0) is None


class StubRacer:
    """Takes no time: seed N is right in (93 + N) %, and one seed fails."""

    ran: list[int] = []
    fails: int | None = None

    def __init__(self, *_: Any) -> None:
        pass

    def warm_up(self) -> float:
        return 0.0

    def run(self, seed: int) -> dict[str, Any]:
        if seed == StubRacer.fails:
            raise KeyboardInterrupt
        StubRacer.ran.append(seed)
        seconds = {"seconds": 2.0, "prepare_seconds": 0.5, "train_seconds": 1.0, "evaluate_seconds": 0.5}
        return {"seed": seed, **seconds, "accuracy": 93.0 + seed, "accuracy_plain": 92.0 + seed, "train_loss": 1.0}


@pytest.fixture
def race(room, data, monkeypatch, tmp_path):
    """Return a function that runs the command with a racer that takes no time, and gives back what it wrote."""
    script, path = room("race"), tmp_path / "results" / "race.json"
    monkeypatch.setattr(room("race_run"), "Racer", StubRacer)
    monkeypatch.setattr(cnnlab, "load_dataset", lambda *_: data, raising=False)
    monkeypatch.setattr(StubRacer, "ran", [])
    monkeypatch.setattr(StubRacer, "fails", None)

    def run(*arguments: str) -> dict[str, Any]:
        script.main(["--json", str(path), *arguments])
        return json.loads(path.read_text(encoding="utf-8"))

    return run


def test_what_is_written_tells_all_runs_and_what_they_say_together(race, capsys) -> None:
    written = race("--target", "94", "--runs", "4")
    assert [run["seed"] for run in written["runs"]] == [0, 1, 2, 3]
    assert written["accuracy"]["values"] == [93.0, 94.0, 95.0, 96.0] and written["accuracy"]["mean"] == 94.5
    assert written["accuracy_plain"]["mean"] == 93.5 and written["seconds"]["mean"] == 2.0
    assert written["reached"] is True and written["target"] == 94
    assert written["p_value"] == pytest.approx(0.2475, abs=5e-4)  # the same t as in the test above
    assert written["settings"]["recipe"]["name"] == "race94"
    assert written["settings"]["test_time_augmentation"] == "multi-crop"
    assert {"jax", "git_revision", "cpu", "device_kind"} <= set(written["environment"])
    said = capsys.readouterr()
    assert "mean of 94 %: reached (p = 0.25" in said.out
    assert "seed 2: 2.000 s, 95.00 % (without test-time augmentation 94.00 %)" in said.err


def test_the_page_gets_a_line_per_race(race, tmp_path) -> None:
    page = tmp_path / "race.md"
    page.write_text("<!-- race: begin -->\nold\n<!-- race: end -->\n")
    race("--runs", "2", "--page", str(page))
    head, _, line = page.read_text().splitlines()[2:5]
    assert head.startswith("| recipe | device | n | accuracy, 6 views | accuracy, one view | seconds a run |")
    assert (
        line.startswith("| `race94` | ") and "| 2 | 93.50 ± 0.71 % | 92.50 ± 0.71 % | 2.0 ± 0.0 | float32, jax" in line
    )
    assert line.endswith("`benchmarks/results/race.json` |") and "old" not in page.read_text()


def test_finished_runs_are_kept_and_not_repeated(race) -> None:
    StubRacer.fails = 2
    with pytest.raises(KeyboardInterrupt):
        race("--runs", "4")
    assert StubRacer.ran == [0, 1]
    StubRacer.fails = None
    assert race("--runs", "4")["accuracy"]["n"] == 4
    assert StubRacer.ran == [0, 1, 2, 3]
    assert race("--runs", "3")["accuracy"]["n"] == 3 and len(StubRacer.ran) == 4
    assert race("--runs", "1", "--fresh")["accuracy"]["n"] == 1 and StubRacer.ran[4:] == [0]


def test_runs_made_otherwise_are_not_mixed_with_new_ones(race, capsys) -> None:
    race("--runs", "1")
    with pytest.raises(
        SystemExit, match=r"Expected runs with these settings in .*got others \(recipe\); do add --fresh"
    ):
        race("--runs", "2", "--dtype", "bfloat16")


def test_an_unfinished_line_is_ignored_and_does_not_spoil_the_next(room, tmp_path) -> None:
    results, path, settings = room("race_results"), tmp_path / "runs.jsonl", {"a": (1, 2)}
    results.append_run(path, settings, {"seed": 0, "seconds": 1.0})
    with path.open("a") as file:
        file.write('{"seed": 1, "sec')
    assert [run["seed"] for run in results.read_runs(path, settings)] == [0]
    results.append_run(path, settings, {"seed": 1, "seconds": 2.0})
    assert results.read_runs(path, settings) == [{"seed": 0, "seconds": 1.0}, {"seed": 1, "seconds": 2.0}]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--recipe", "thesis"), "Expected --recipe to be one of race94, race94-muon, race95, race96, got 'thesis'"),
        (("--runs", "0"), "Expected --runs of at least 1, got 0"),
        (("--peer", "nowhere.py"), "Expected the script of a peer at nowhere.py, got no such file"),
    ],
    ids=["recipe", "runs", "peer"],
)
def test_impossible_requests_are_one_line(race, arguments: tuple[str, ...], text: str) -> None:
    with pytest.raises(SystemExit, match=text):
        race(*arguments)
    assert StubRacer.ran == []


def test_a_peer_runs_in_alternation_and_the_ratio_is_that_of_the_rounds(race, tmp_path, capsys) -> None:
    peer = tmp_path / "peer.py"
    peer.write_text("print('compiling: 9.9'); print('took 5.0 s')")
    written = race("--runs", "2", "--peer", str(peer), "--peer-pattern", r"took ([0-9.]+) s")
    assert written["peer"]["seconds"]["values"] == [5.0, 5.0]
    assert written["peer"]["ratio"]["values"] == [2.5, 2.5]
    assert min(written["peer"]["wall_seconds"]["values"]) > 0
    assert "peer / ours, by rounds" in capsys.readouterr().out


def test_a_peer_that_fails_or_reports_nothing_is_one_line(room, tmp_path) -> None:
    error, run_peer = room("measure").BenchmarkError, room("race_peer").run_peer
    peer = tmp_path / "peer.py"
    peer.write_text("raise SystemExit('no GPU here')")
    with pytest.raises(error, match="peer.py stopped: no GPU here"):
        run_peer(peer)
    peer.write_text("print('took 5.0 s')")
    found = run_peer(peer)
    assert found["seconds"] == found["wall_seconds"] > 0
    for pattern, text in (
        ("time ([0-9.]+)", "Expected a match"),
        ("took (.+)", "Expected --peer-pattern"),
        ("(", "got:"),
    ):
        with pytest.raises(error, match=text):
            run_peer(peer, pattern)
