"""A run that was interrupted or killed and resumed equals the unbroken one, bit for bit.

Dropout, batch statistics, noise, shuffling and rate cuts are all at work; controls show that the
comparison would notice.
"""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnlab.training import Callback, CheckpointError, RunFolder, Trainer, loop

ROOT = Path(__file__).resolve().parents[2]
SEED = 3

CHILD = """
import os, runpy, signal, sys
from cnnlab.training import Callback, RunFolder, Trainer, loop
helpers = runpy.run_path("tests/training/conftest.py")
loop._SECONDS_BETWEEN_REPORTS = 1e-9
folder, hook = RunFolder.create(sys.argv[1]), sys.argv[2]

class Kill(Callback):
    def on_steps(self, epoch, done, total):
        if hook == "steps" and (epoch, done) == (3, 2):
            os.kill(os.getpid(), signal.SIGKILL)
    def on_epoch(self, record):
        if record["epoch"] == 1:
            return  # the first epoch is always saved, right after this
        folder.last.wait()
        if hook == "epoch":
            os.kill(os.getpid(), signal.SIGKILL)

trainer = Trainer(helpers["small_recipe"](), helpers["small_split"](35), helpers["small_split"](20, seed=1), "test")
trainer.run(helpers["small_network"](), seed=3, folder=folder, callbacks=[Kill()])
"""


class Interrupt(Callback):
    """Press Ctrl-C (or send another signal) at some moments, each written as (epoch, steps) or (epoch, None)."""

    def __init__(self, *moments, number=signal.SIGINT, times=1):
        self.moments, self.number, self.times = moments, number, times

    def _press(self, moment):
        if moment in self.moments:
            for _ in range(self.times):
                signal.raise_signal(self.number)

    def on_steps(self, epoch, done, total):
        self._press((epoch, done))

    def on_epoch(self, record):
        self._press((record["epoch"], None))


@pytest.fixture(scope="module")
def trainer(recipe, split):
    """A trainer that reports after every step, so that every step is a place to stop at."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_SECONDS_BETWEEN_REPORTS", 1e-9)
        yield Trainer(recipe(), split(35), split(20, seed=1), "test")


@pytest.fixture(scope="module")
def unbroken(trainer, network):
    return trainer.run(network(), seed=SEED)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run")


@pytest.fixture
def interrupted(trainer, network, folder):
    """A run that was stopped in the middle of its second epoch, and what it gave back."""
    return trainer.run(network(), seed=SEED, folder=folder, callbacks=[Interrupt((2, 3))])


def resumed(trainer, network, folder, *callbacks):
    """Go on with a network that has other weights and another seed: all that counts is in the folder."""
    return trainer.run(network(99), seed=77, folder=folder, callbacks=callbacks, resume=True)


def assert_complete(folder, outcome):
    assert [record["epoch"] for record in folder.read_metrics()] == [1, 2, 3, 4]
    assert folder.read_metrics() == outcome.position.history
    assert outcome.position.stop_reason == "completed all 4 epochs" and not outcome.interrupted


def test_the_unbroken_run_exercises_what_could_be_lost(unbroken):
    assert "cut" in [record["event"] for record in unbroken.position.history]
    assert 1 < unbroken.position.plateau.best_epoch
    momentum = [leaf for leaf in jax.tree.leaves(unbroken.last.opt_state) if leaf.ndim]
    assert momentum and all(np.asarray(leaf).any() for leaf in momentum)
    assert int(unbroken.last.extra["dropout"]["rngs"]["count"]) == 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", [(1, 1), (2, 3), (3, 5), (2, None)])
def test_an_interrupted_run_that_goes_on_equals_the_unbroken_one(
    trainer, network, folder, unbroken, run_differences, moment, number
):
    stopped = trainer.run(network(), seed=SEED, folder=folder, callbacks=[Interrupt(moment, number=number)])
    epoch, steps = moment
    finished = epoch if steps in (None, 5) else epoch - 1
    assert stopped.interrupted and stopped.position.stop_reason is None
    assert (stopped.position.epoch, stopped.position.step) == (finished, (steps or 0) % 5)
    assert len(folder.read_metrics()) == finished
    outcome = resumed(trainer, network, folder)
    assert run_differences(outcome, unbroken) == []
    assert_complete(folder, outcome)


def test_a_run_that_is_interrupted_at_every_other_step_gets_there_too(
    trainer, network, folder, unbroken, run_differences
):
    moments = [(epoch, steps) for epoch in (1, 2, 3, 4) for steps in (1, 3, None)]
    outcome = trainer.run(network(), seed=SEED, folder=folder, callbacks=[Interrupt(*moments)])
    times = 0
    while outcome.interrupted:
        times += 1
        outcome = resumed(trainer, network, folder, Interrupt(*moments))
    assert times == len(moments) - 1  # at the end of the last epoch there is nothing left to interrupt
    assert run_differences(outcome, unbroken) == []
    assert_complete(folder, outcome)


@pytest.mark.parametrize("hook", ["steps", "epoch"])
def test_a_killed_process_loses_nothing(trainer, network, tmp_path, unbroken, run_differences, hook):
    path = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", CHILD, str(path), hook], cwd=ROOT, timeout=300)
    assert done.returncode == -signal.SIGKILL
    folder = RunFolder(path)
    assert len(folder.read_metrics()) == 2 and folder.last.meta()[1]["epoch"] < 3
    outcome = resumed(trainer, network, folder)
    assert run_differences(outcome, unbroken) == []
    assert_complete(folder, outcome)


def test_a_finished_run_that_is_resumed_gives_the_same_back_and_trains_nothing(
    trainer, network, folder, unbroken, run_differences
):
    trainer.run(network(), seed=SEED, folder=folder)
    outcome = resumed(trainer, network, folder, Interrupt(*[(n, None) for n in range(9)]))
    assert run_differences(outcome, unbroken) == []
    assert_complete(folder, outcome)


@pytest.mark.parametrize("what", ["seed", "step", "momentum", "dropout key", "batch statistics"])
def test_a_state_that_was_tampered_with_is_noticed(
    trainer, network, folder, interrupted, unbroken, run_differences, what
):
    """Negative control: one bit of the saved state decides, and the comparison sees it."""
    _, state, meta = folder.last.load(interrupted.last)
    if what in ("seed", "step"):
        state = dataclasses.replace(state, **{what: getattr(state, what) + 1})
    elif what == "momentum":
        state = dataclasses.replace(state, opt_state=jax.tree.map(up_one_bit, state.opt_state))
    elif what == "dropout key":
        state.extra["dropout"]["rngs"]["count"] += 1
    else:
        state.extra["norm"]["var"] = up_one_bit(state.extra["norm"]["var"])
    folder.last.save(0, state, meta)
    assert run_differences(resumed(trainer, network, folder), unbroken) != []


def up_one_bit(leaf):
    return np.nextafter(leaf, np.float32(np.inf)) if leaf.dtype == np.float32 else leaf


@pytest.mark.parametrize("what", ["sums", "plateau", "step"])
def test_a_position_that_was_tampered_with_is_noticed(
    trainer, network, folder, interrupted, unbroken, run_differences, what
):
    _, state, meta = folder.last.load(interrupted.last)
    if what == "sums":
        meta["sums"][0] *= 1 + 1e-5
    elif what == "plateau":
        meta["plateau"]["learning_rate"] *= 1 + 1e-6
    else:
        meta["step"] -= 1
    folder.last.save(0, state, meta)
    assert run_differences(resumed(trainer, network, folder), unbroken) != []


def test_the_sums_of_half_an_epoch_come_back_exactly(trainer, network, folder, interrupted, split):
    loss_sum, correct, count = interrupted.position.sums
    totals = interrupted.position.totals()
    assert (float(totals.loss_sum), int(totals.correct), int(totals.count)) == (loss_sum, correct, count)
    assert count == 24 and folder.last.meta()[1]["sums"] == [loss_sum, correct, count]
    assert [value.dtype for value in totals] == [jnp.float32, jnp.int32, jnp.int32]


def test_seconds_of_half_an_epoch_are_not_forgotten(trainer, network, folder, interrupted):
    before = interrupted.position.epoch_seconds
    assert before > 0 and folder.last.meta()[1]["epoch_seconds"] == before
    records = resumed(trainer, network, folder).position.history
    assert records[1]["seconds"] > before
    assert records[0] == interrupted.position.history[0]


def test_going_on_needs_a_checkpoint(trainer, network, folder):
    with pytest.raises(CheckpointError, match="Expected a whole checkpoint in .*last, got none; do train again"):
        resumed(trainer, network, folder)
    with pytest.raises(ValueError, match="Expected a run folder to resume from, got none; do pass folder="):
        trainer.run(network(), resume=True)


def test_a_run_that_starts_afresh_where_one_was_killed_before_its_first_checkpoint_has_each_epoch_once(
    trainer, network, folder, unbroken
):
    folder.append_metrics({**unbroken.position.history[0], "accuracy": 0.5})
    outcome = trainer.run(network(), seed=SEED, folder=folder)
    assert_complete(folder, outcome)


def test_the_second_ctrl_c_stops_at_once_and_what_was_saved_goes_on(
    trainer, network, folder, unbroken, run_differences
):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt):
        trainer.run(network(), seed=SEED, folder=folder, callbacks=[Interrupt((3, 2), times=2)])
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert folder.last.meta()[1]["epoch"] in (1, 2)
    outcome = resumed(trainer, network, folder)
    assert run_differences(outcome, unbroken) == []
    assert_complete(folder, outcome)


def test_an_interrupted_run_in_memory_gives_back_the_best_so_far(trainer, network, unbroken):
    outcome = trainer.run(network(), seed=SEED, callbacks=[Interrupt((2, 3))])
    assert outcome.interrupted and outcome.position.stop_reason is None
    assert (outcome.position.epoch, outcome.position.step, int(outcome.last.step)) == (1, 3, 8)
    assert outcome.position.history[0]["accuracy"] == unbroken.position.history[0]["accuracy"]


def test_a_run_that_is_interrupted_before_its_first_step_can_go_on(trainer, network, folder, unbroken, run_differences):
    class Early(Callback):
        def on_compile(self, seconds):
            if seconds is None:
                os.kill(os.getpid(), signal.SIGINT)

    stopped = trainer.run(network(), seed=SEED, folder=folder, callbacks=[Early()])
    assert stopped.interrupted and int(stopped.last.step) == 0
    assert run_differences(resumed(trainer, network, folder), unbroken) == []
