"""What the parts of a recipe keep in the state comes back from a checkpoint: a resumed run equals the unbroken one."""

import dataclasses
import signal

import jax
import numpy as np
import pytest

from cnnlab.training import Callback, RunFolder, Trainer, loop

PARTS = {
    "ema": dict(
        average="ema",
        average_decay=0.9,
        optimizer="adamw",
        accumulate=2,
        clip_norm=1.0,
        weight_decay=0.01,
        flip="random",
    ),
    "lookahead": dict(
        average="lookahead",
        average_decay=0.7,
        average_every=2,
        average_ramp=2.0,
        optimizer="muon",
        schedule="one-cycle",
        warmup_epochs=1.5,
        weight_decay=0.01,
        weight_decays={"*.bias": 0.5},
        muon_normalize=True,
    ),
}


class Stop(Callback):
    """Press Ctrl-C in the middle of the second epoch, between two batches of one update."""

    def on_steps(self, epoch, done, total):
        if (epoch, done) == (2, 2):
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module", params=[*PARTS])
def trainer(request, recipe, split):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_SECONDS_BETWEEN_REPORTS", 1e-9)
        yield Trainer(recipe(epochs=3, **PARTS[request.param]), split(35), split(20, seed=1), "test")


@pytest.fixture(scope="module")
def unbroken(trainer, network):
    return trainer.run(network(), seed=3)


@pytest.fixture
def interrupted(trainer, network, tmp_path):
    folder = RunFolder.create(tmp_path / "run")
    outcome = trainer.run(network(), seed=3, folder=folder, callbacks=[Stop()])
    assert outcome.interrupted and int(outcome.last.step) == 7
    return folder, outcome


def test_a_resumed_run_equals_the_unbroken_one(trainer, network, interrupted, unbroken, run_differences):
    folder, _ = interrupted
    outcome = trainer.run(network(99), seed=77, folder=folder, resume=True)
    assert run_differences(outcome, unbroken) == []
    assert outcome.position.stop_reason == "completed all 3 epochs"


def test_an_average_that_was_tampered_with_is_noticed(trainer, network, interrupted, unbroken, run_differences):
    """Negative control: one bit of the saved average decides, and the comparison sees it."""
    folder, stopped = interrupted
    _, state, meta = folder.last.load(stopped.last)
    params, extra = state.average
    bumped = jax.tree.map(lambda leaf: np.nextafter(leaf, np.float32(np.inf)), params)
    folder.last.save(0, dataclasses.replace(state, average=(bumped, extra)), meta)
    outcome = trainer.run(network(99), folder=folder, resume=True)
    assert run_differences(outcome, unbroken) != []
