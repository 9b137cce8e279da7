"""The command of the race: what it writes, how it goes on, what it refuses, and how a peer takes its turns."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import cnnlab
from cnnlab.data import DatasetError, dataset_from_arrays
from cnnlab.training import get_recipe


class StubRacer:
    """Takes no time: seed N is right in (93 + N) %, and one seed fails."""

    made: list[tuple[Any, ...]] = []
    ran: list[int] = []
    fails: int | None = None

    def __init__(self, *given: Any) -> None:
        StubRacer.made.append(given)

    def warm_up(self) -> float:
        return 0.0

    def run(self, seed: int) -> dict[str, Any]:
        if seed == StubRacer.fails:
            raise KeyboardInterrupt
        StubRacer.ran.append(seed)
        seconds = {"seconds": 2.0, "prepare_seconds": 0.5, "train_seconds": 1.0, "evaluate_seconds": 0.5}
        return {"seed": seed, **seconds, "accuracy": 93.0 + seed, "accuracy_plain": 92.0 + seed, "train_loss": 1.0}


@pytest.fixture
def race(room, monkeypatch, tmp_path):
    """Return a function that runs the command with a racer that takes no time, and gives back what it wrote."""
    script, path = room("race"), tmp_path / "results" / "race.json"
    images, labels = np.zeros((150, 10, 10, 3), np.uint8), np.arange(150, dtype=np.int32) % 10
    data = dataset_from_arrays(images[:100], labels[:100], images[100:], labels[100:], classes=[*"abcdefghij"])
    monkeypatch.setattr(room("race_run"), "Racer", StubRacer)
    monkeypatch.setattr(cnnlab, "load_dataset", lambda *_: data, raising=False)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "")  # so that what the command sets is undone
    monkeypatch.delenv("XLA_PYTHON_CLIENT_PREALLOCATE")
    for name, value in (("made", []), ("ran", []), ("fails", None)):
        monkeypatch.setattr(StubRacer, name, value)

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
    # t = 0.5 / (1.291 / 2) = 0.7746, as in the test of the p-value.
    assert written["p_value"] == pytest.approx(0.2475, abs=5e-4)
    assert written["settings"]["recipe"]["name"] == "race94" and written["settings"]["peer"] is None
    assert written["settings"]["test_time_augmentation"] == "multi-crop"
    assert {"jax", "git_revision", "cpu", "device_kind", "platform_version", "gpus"} <= set(written["environment"])
    codes = [run["code"] for run in written["runs"]]
    assert codes == [codes[0]] * 4 and set(codes[0]) == {"revision", "dirty", "jax"}
    assert written["petaflop"]["total"] > 0 and "peer" not in written
    said = capsys.readouterr()
    assert "mean of 94 %: reached (p = 0.25" in said.out and " PFLOP a run, " in said.out
    assert "seed 2: 2.000 s, 95.00 % (without test-time augmentation 94.00 %)" in said.err
    assert "XLA_PYTHON_CLIENT_PREALLOCATE" not in os.environ


def test_the_page_gets_a_line_per_race(race, tmp_path) -> None:
    page = tmp_path / "race.md"
    page.write_text("<!-- race: begin -->\nold\n<!-- race: end -->\n")
    race("--runs", "2", "--page", str(page))
    head, _, line = page.read_text().splitlines()[2:5]
    assert head.startswith("| recipe | device | n | accuracy, 6 views | accuracy, one view | p | PFLOP a run |")
    assert line.startswith("| `race94` | ")
    assert "| 2 | 93.50 ± 0.71 % | 92.50 ± 0.71 % | 0.75 | " in line and "| 2.0 ± 0.0 | no peer | float32, jax" in line
    assert line.endswith("`benchmarks/results/race.json` |") and "old" not in page.read_text()


def test_finished_runs_are_kept_and_not_repeated(race, capsys) -> None:
    StubRacer.fails = 2
    with pytest.raises(SystemExit) as stopped:
        race("--runs", "4")
    assert stopped.value.code == 130 and StubRacer.ran == [0, 1]
    assert "race.py: interrupted; finished runs are kept, and the same command" in capsys.readouterr().err
    StubRacer.fails = None
    assert race("--runs", "4")["accuracy"]["n"] == 4
    assert StubRacer.ran == [0, 1, 2, 3]
    assert race("--runs", "3")["accuracy"]["n"] == 3 and len(StubRacer.ran) == 4
    assert len(StubRacer.made) == 2  # where nothing is missing, nothing compiles
    assert race("--runs", "1", "--fresh")["accuracy"]["n"] == 1 and StubRacer.ran[4:] == [0]


def test_runs_made_otherwise_are_not_mixed_with_new_ones(race) -> None:
    race("--runs", "1")
    with pytest.raises(
        SystemExit, match=r"Expected runs with these settings in .*got others \(recipe\); do add --fresh"
    ):
        race("--runs", "2", "--dtype", "bfloat16")


def test_quick_is_one_run_of_one_epoch_on_few_images_and_counts_nowhere(race, room, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(room("race"), "_QUICK_TRAIN", 40)
    monkeypatch.setattr(room("race"), "_QUICK_TEST", 20)
    written = race("--quick", "--target", "95", "--runs", "7")
    assert race("--quick", "--target", "95")["accuracy"]["n"] == written["accuracy"]["n"] == 1
    assert StubRacer.ran == [0, 0]  # nothing is kept of it
    recipe, options, data, _ = StubRacer.made[0]
    assert recipe.epochs == 1 and recipe.warmup_epochs == pytest.approx(0.23)
    assert recipe.replace(epochs=15, warmup_epochs=0.23 * 15) == get_recipe("race95")
    assert options == {"widths": [128, 384, 384]}
    assert (len(data.train), len(data.test)) == (40, 20)
    assert (written["settings"]["train_images"], written["settings"]["test_images"]) == (40, 20)
    # Without --json the name of the file says so, and the page leaves it out.
    monkeypatch.setattr(room("race"), "RESULTS", tmp_path / "there")
    room("race").main(["--quick"])
    assert (tmp_path / "there" / "race94_cpu_quick.json").is_file()
    assert room("race_results").page_table(tmp_path / "there").count("\n") == 1  # the head alone


def test_a_recipe_brings_its_target(race) -> None:
    for name, target in (("race94-muon", 94), ("race95", 95), ("race96", 96)):
        assert race("--recipe", name, "--fresh")["target"] == target
        assert StubRacer.made[-1][0] == get_recipe(name)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--recipe", "thesis"), "Expected --recipe to be one of race94, race94-muon, race95, race96, got 'thesis'"),
        (("--recipe", "race95", "--target", "94"), "Expected --target 95 with race95, got 94; do leave one of the two"),
        (("--runs", "0"), "Expected --runs of at least 1, got 0"),
        (("--peer", "nowhere.py"), "Expected the script of a peer at nowhere.py, got no such file"),
        (("--peer-pattern", "(.)", "--peer-every", "2"), "Expected --peer with --peer-pattern and --peer-every, got"),
        (("--profile", "there", "--peer", __file__), "Expected --profile without a --peer, got both"),
        (("--page", "nowhere.md"), "Expected a page at nowhere.md, got: No such file"),
        (("--page", __file__), "Expected '<!-- race: begin -->' and '<!-- race: end -->' in .*, each once; do put"),
        (("--page", __file__, "--profile", "there"), "Expected '<!-- race_profile: begin -->' and "),
    ],
    ids=["recipe", "target", "runs", "peer", "no-peer", "profile", "no-page", "page", "profile-page"],
)
def test_impossible_requests_are_one_line_and_nothing_runs(race, arguments: tuple[str, ...], text: str) -> None:
    with pytest.raises(SystemExit, match=text):
        race(*arguments)
    assert StubRacer.made == []


def test_missing_data_are_one_line(race, monkeypatch) -> None:
    def nothing(*_: Any) -> None:
        raise DatasetError("Expected CIFAR-10 in nowhere, got nothing.")

    monkeypatch.setattr(cnnlab, "load_dataset", nothing, raising=False)
    with pytest.raises(SystemExit, match="^race.py: Expected CIFAR-10 in nowhere, got nothing.$"):
        race()


def a_peer(folder: Path, text: str) -> list[str]:
    """The options that bring a script of this text along, which notes that it was called."""
    script = folder / "peer.py"
    script.write_text(f"open('calls.txt', 'a').write('x')\n{text}\n")
    return ["--peer", str(script), "--peer-pattern", r"took ([0-9.]+) s"]


def calls(folder: Path) -> int:
    return len((folder / "calls.txt").read_text())


def test_a_peer_that_runs_once_takes_its_turn_after_each_run(race, tmp_path, capsys) -> None:
    peer = a_peer(tmp_path, "print('compiling: 9.9'); print('took 5.0 s')")
    written = race("--runs", "2", *peer)
    assert written["peer"]["seconds"]["values"] == [5.0, 5.0] and calls(tmp_path) == 2
    assert written["peer"]["ratio"]["values"] == [2.5, 2.5]
    assert min(written["peer"]["wall_seconds"]["values"]) > 0
    assert written["settings"]["peer"]["every"] == 1
    said = capsys.readouterr()
    assert "peer / ours, by rounds" in said.out
    told = [line.split(":")[0].strip() for line in said.err.splitlines() if line.startswith(("seed", "  peer"))]
    assert told == ["seed 0", "peer", "peer", "seed 1", "peer", "peer"]
    assert (tmp_path / "results" / "race_peer_1.log").read_text() == "compiling: 9.9\ntook 5.0 s\n"
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"  # it runs on the same GPU


def test_a_peer_that_runs_many_times_a_call_is_called_once_a_round(race, tmp_path) -> None:
    peer = a_peer(tmp_path, "for seconds in (99, 4, 6, 8): print('took', float(seconds), 's')")
    written = race("--runs", "3", *peer, "--peer-warm-up", "1", "--peer-every", "2")
    assert calls(tmp_path) == 2 and written["accuracy"]["n"] == 3
    assert written["peer"]["seconds"]["values"] == [4.0, 6.0, 8.0] * 2
    assert written["peer"]["ratio"]["values"] == [3.0, 3.0]


def test_a_run_outlives_a_peer_that_fails(race, tmp_path) -> None:
    text = "import sys\nif open('calls.txt').read() == 'xx': sys.exit('no GPU here')\nprint('took 5 s')"
    peer = a_peer(tmp_path, text)  # its second call fails
    with pytest.raises(SystemExit, match="race.py: peer.py stopped: no GPU here"):
        race("--runs", "3", *peer)
    assert StubRacer.ran == [0, 1]
    assert race("--runs", "3", *peer)["peer"]["seconds"]["n"] == 3
    assert StubRacer.ran == [0, 1, 2] and calls(tmp_path) == 4  # the one that failed, and no other, again


def test_runs_beside_another_peer_are_not_mixed(race, tmp_path) -> None:
    peer = a_peer(tmp_path, "print('took 5 s')")
    race("--runs", "1", *peer)
    for other in (["--runs", "2", *peer[:2]], ["--runs", "2"], ["--runs", "2", *peer, "--peer-args", "8"]):
        with pytest.raises(SystemExit, match=r"got others \(peer\)"):
            race(*other)
    assert race("--runs", "2", *peer)["peer"]["seconds"]["n"] == 2


def test_a_profile_is_a_run_in_no_race(race, room, monkeypatch, tmp_path, capsys) -> None:
    module, kernels = room("race_profile"), {"convolution": 0.75, "fusion": 0.25}

    def profile(racer: Any, folder: Path) -> dict[str, Any]:
        assert isinstance(racer, StubRacer) and folder == tmp_path / "traces"
        return {"run": racer.run(0), "kernels": kernels}

    monkeypatch.setattr(module, "profile", profile)
    page = tmp_path / "performance.md"
    page.write_text("<!-- race_profile: begin -->\nold\n<!-- race_profile: end -->\n")
    written = race("--recipe", "race94-muon", "--profile", str(tmp_path / "traces"), "--page", str(page))
    assert written["benchmark"] == "race_profile" and written["kernels"] == kernels
    assert not (tmp_path / "results" / "race.jsonl").exists()
    for text in (page.read_text(), capsys.readouterr().out):
        lines = [line.split() for line in text.splitlines()]
        assert "race94-muon, float32".split() in lines
        assert ["train", "1.000"] in lines and ["convolution", "0.750", "75.0", "%"] in lines


def test_kernels_of_all_streams_are_summed_by_kind(room) -> None:
    def line(name: str, *events: tuple[str, float]) -> SimpleNamespace:
        return SimpleNamespace(name=name, events=[SimpleNamespace(name=n, duration_ns=ns) for n, ns in events])

    device = [
        line("Stream #1(Compute)", ("fusion.1", 1e9), ("conv_7", 2.5e9), ("fusion.22", 1e9)),
        line("Stream #2(MemcpyH2D)", ("Memcpy", 5e8)),
        line("XLA Modules", ("jit_steps", 9e9)),  # made of the kernels above
    ]
    planes = [
        SimpleNamespace(name="/device:GPU:0", lines=device),
        SimpleNamespace(name="/host:CPU", lines=[line("Stream", ("python", 9e9))]),
    ]
    found = room("race_profile").kernel_seconds(planes)
    assert list(found.items()) == [("conv", 2.5), ("fusion", 2.0), ("Memcpy", 0.5)]


def test_what_nvidia_smi_says_of_each_card_is_kept(room, monkeypatch, tmp_path) -> None:
    facts, command = room("race_facts"), tmp_path / "nvidia-smi"
    command.write_text(
        "#!/bin/sh\necho 'NVIDIA T, 550.90, 400.00, 1980, 81559'\necho 'NVIDIA U, 550.90, [N/A], 5, 6'\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = facts.describe_device()
    first = {"name": "NVIDIA T", "driver": "550.90", "power_limit_watts": 400.0, "clock_mhz": 1980, "memory_mib": 81559}
    assert found["gpus"][0] == first
    assert found["gpus"][1]["power_limit_watts"] is None and len(found["gpus"]) == 2
    assert found["platform_version"]
    command.write_text("#!/bin/sh\nexit 9\n")
    assert facts.describe_device()["gpus"] is None


@pytest.mark.slow
def test_the_profiler_leaves_a_trace_and_on_a_cpu_no_kernels(room, tmp_path) -> None:
    found = room("race_profile").profile(StubRacer(), tmp_path)
    assert found["run"]["seed"] == 0 and found["kernels"] == {}
    assert [*tmp_path.glob("**/*.xplane.pb")]
    report = room("race_profile").profile_report("a run", found)
    assert "the whole run, by the clock" in report and "on the device" not in report
