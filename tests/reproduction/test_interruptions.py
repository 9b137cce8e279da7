"""A row trains alone, at once with other seeds or in processes; it is interrupted, and goes on."""

import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import Queue
from types import SimpleNamespace

import pytest

from cnnlab.experiment import plan
from cnnlab.reproduction import Results, reproduce, workers
from cnnlab.reproduction.gather import read_run, rows_of
from cnnlab.reproduction.results import seconds_of
from cnnlab.reproduction.runner import train_row
from cnnlab.reproduction.workers import train_in_processes
from cnnlab.training import Callback, RunFolderError, Trainer
from cnnlab.training.interrupt import StopRequest


class StopInEpoch(Callback):
    """Press Ctrl-C when the first epoch has ended."""

    def on_epoch(self, record):
        if record["epoch"] == 1:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def row(small):
    """A row of five seeds."""
    return replace(rows_of(small, Results("small"))[0], seeds=5)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    """Seeds, lanes, and whether they went on, of each program from now on; all at once, as if that were faster."""
    calls: list[tuple] = []
    run = Trainer.run_at_once

    def note(self, todo, *, lanes, resume, **others):
        calls.append(([seed for _, seed, _ in todo], lanes, resume))
        return run(self, todo, lanes=lanes, resume=resume, **others)

    monkeypatch.setattr(Trainer, "run_at_once", note)
    monkeypatch.setattr(plan, "measured_width", lambda trainer, network, seeds, progress: len(seeds))
    return calls


def run_of(out, seed: int) -> dict:
    run = read_run(out / "narrow" / f"seed-{seed}", seed)
    assert run is not None
    return run


def test_seeds_that_trained_at_once_go_on_at_once_and_new_ones_likewise(row, programs, tmp_path) -> None:
    whole, broken, alone = (tmp_path / name for name in ("whole", "broken", "alone"))
    assert train_row(row, [0, 1], whole, progress=False)
    assert not train_row(row, [0, 1], broken, callbacks=[StopInEpoch()], progress=False)
    assert read_run(broken / "narrow" / "seed-0", 0) is None
    shutil.copytree(broken, alone)
    programs.clear()
    assert train_row(row, [0, 1, 3, 4], broken, progress=False)
    assert programs == [([0, 1], (0, 1), True), ([3, 4], (3, 4), False)]
    for seed in (0, 1):
        there, expected = run_of(broken, seed), run_of(whole, seed)
        assert there["history"] == expected["history"] and there["test_accuracy"] == expected["test_accuracy"]
        assert there["seeds_at_once"] == 2 and seconds_of(there) == there["train_seconds"] / 2
    assert run_of(broken, 4)["seeds_at_once"] == 2

    (whole / "narrow" / "seed-0" / "result.json").unlink()  # killed after its last step
    assert train_row(row, [0], whole, progress=False) and run_of(whole, 0)["seeds_at_once"] == 2

    programs.clear()
    assert train_row(row, [1], alone, progress=False)
    assert programs == [([1], (0, 1), True)], "in its old lanes, and so to the same bits"
    assert run_of(alone, 1)["history"] == run_of(whole, 1)["history"]
    assert run_of(alone, 1)["seeds_at_once"] == 1, "nobody shares its seconds"


def test_one_that_was_killed_as_it_began_begins_anew(row, tmp_path, monkeypatch) -> None:
    def kill():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(plan, "describe_environment", kill)
        train_row(row, [0], tmp_path, progress=False)
    assert {path.name for path in (tmp_path / "narrow" / "seed-0").iterdir() if path.is_file()} == {"recipe.json"}
    assert train_row(row, [0], tmp_path, progress=False) and run_of(tmp_path, 0)["environment"]["started"]


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let threads stand for the processes; returns what tells them to stop."""
    stop = threading.Event()
    context = SimpleNamespace(Queue=Queue, Event=lambda: stop)
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda kind: context)
    monkeypatch.setattr(workers, "ProcessPoolExecutor", lambda count, *others: ThreadPoolExecutor(count))
    return stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_no_further_job_begins(row, threads, tmp_path, monkeypatch, capsys, number) -> None:
    began, ended = [], []

    def train(row, seed, *others) -> bool:
        began.append(seed)
        if seed == 2:
            os.kill(os.getpid(), number)
        return seed == 0 or not threads.wait(30)

    monkeypatch.setattr(workers, "_train", train)
    jobs = [(row, seed) for seed in range(9)]
    assert not train_in_processes(jobs, tmp_path, 2, lambda: ended.append(len(began)))
    assert began == [0, 1, 2] and len(ended) == 3 and ended[0] < 3, "each is looked at when it ends"
    assert sorted(capsys.readouterr().out.splitlines()) == [
        "narrow seed 0: done",
        "narrow seed 1: interrupted",
        "narrow seed 2: interrupted",
    ]


def test_an_error_of_a_job_stops_the_others(row, threads, tmp_path, monkeypatch, capsys) -> None:
    def train(row, seed, *others) -> bool:
        if seed == 0:
            raise RunFolderError("Expected no other process")
        return not threads.wait(30)

    monkeypatch.setattr(workers, "_train", train)
    start = time.perf_counter()
    with pytest.raises(RunFolderError, match="Expected no other process"):
        train_in_processes([(row, 0), (row, 1), (row, 2)], tmp_path, 2, lambda: None, progress=False)
    assert time.perf_counter() - start < 20 and capsys.readouterr().out == ""


def test_all_jobs_end_without_a_signal(row, threads, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(workers, "_train", lambda *job: True)
    ended = []
    assert train_in_processes([(row, seed) for seed in range(5)], tmp_path, 2, lambda: ended.append(1), progress=False)
    assert len(ended) == 5


def test_a_process_hears_that_all_are_to_stop(row, tmp_path, monkeypatch) -> None:
    stop = threading.Event()
    listener = workers._Listener(stop)  # pyright: ignore[reportArgumentType]
    monkeypatch.setattr(workers, "_listener", listener)
    with StopRequest() as request:
        listener.on_steps(1, 1, 4)
        assert not request.requested
        signal.raise_signal(signal.SIGINT)  # Ctrl-C reaches every process of a terminal ...
        stop.set()
        listener.on_steps(1, 2, 4)  # ... and is not taken for a second one
        listener.on_steps(1, 3, 4)
        assert request.requested
    with StopRequest() as request:
        listener.on_steps(1, 1, 4)
        assert request.requested
    assert not workers._train(row, 0, tmp_path, None) and not any(tmp_path.iterdir()), "what is queued does not begin"


@pytest.mark.slow
def test_processes_of_a_core_each_find_the_same(small, tmp_path) -> None:
    alone, _ = reproduce("small", tmp_path / "a", rows=["narrow"], progress=False)
    beside, _ = reproduce("small", tmp_path / "b", rows=["narrow"], workers=2, progress=False)
    for one, two in zip(alone.rows["narrow"].runs, beside.rows["narrow"].runs, strict=True):
        assert two["history"]["train_loss"] == pytest.approx(one["history"]["train_loss"], rel=1e-4)  # other sums
    assert "epoch" in (tmp_path / "b" / "narrow" / "seed-1.log").read_text()


@pytest.mark.slow
def test_processes_save_where_they_stand_when_their_parent_is_to_end(row, tmp_path) -> None:
    long = replace(row, recipe=row.recipe.replace(epochs=100_000))
    log = tmp_path / "narrow" / "seed-1.log"

    def stop_when_it_trains() -> None:
        while not log.is_file() or "epoch" not in log.read_text():
            time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop_when_it_trains, daemon=True).start()
    assert not train_in_processes([(long, seed) for seed in range(4)], tmp_path, 2, lambda: None, progress=False)
    saved = {path.name for path in (tmp_path / "narrow").glob("seed-?") if any((path / "checkpoints").rglob("meta*"))}
    assert saved == {"seed-0", "seed-1"} and not (tmp_path / "narrow" / "seed-2").exists()
