"""After the first epoch a run compiles nothing any more: steps, evaluation, books, checkpoints, end and all."""

from collections import Counter

import jax
import jax.numpy as jnp
import pytest

from cnnlab.training import Callback, RunFolder, Trainer

SEEDS = [3, 0, 7]
COMPILATION = "/jax/core/compile/backend_compile_duration"


class Programs:
    """Counts by name what JAX compiles while it is entered, small programs too."""

    def __init__(self):
        self.compiled: Counter[str] = Counter()

    def __enter__(self):
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(self, *error):
        jax.monitoring.unregister_event_duration_listener(self._hear)

    def _hear(self, event, seconds, **about):
        if event == COMPILATION:
            self.compiled[str(about.get("fun_name"))] += 1


class AfterEpoch(Callback):
    """Forgets what was compiled until the end of an epoch; that of all later ones stays counted."""

    def __init__(self, programs, epoch):
        self._programs, self._epoch, self.before = programs, epoch, Counter()

    def on_epoch(self, record):
        if record["epoch"] == self._epoch:
            self.before = self._programs.compiled.copy()
            self._programs.compiled.clear()


@pytest.fixture(scope="module")
def trainer(recipe, split):
    """Short last batches in training and evaluation, a rate that is cut, an average, several best epochs."""
    return Trainer(recipe(epochs=5, average="ema", average_decay=0.5), split(35), split(130, seed=1), "test")


def test_the_count_hears_a_new_shape_and_not_an_old_one():
    program, arrays = jax.jit(lambda x: x + 1), [jnp.ones(size) for size in (11, 11, 13)]
    with Programs() as programs:
        for array in arrays:
            program(array).block_until_ready()
    assert sum(programs.compiled.values()) == 2


def test_after_the_first_epoch_a_run_compiles_nothing(trainer, network, tmp_path):
    jax.clear_caches()  # of other tests: so that this run compiles what it needs
    folder = RunFolder.create(tmp_path / "run")
    with Programs() as programs:
        listener = AfterEpoch(programs, epoch=1)
        outcome = trainer.run(network(), seed=3, folder=folder, callbacks=[listener])
    assert sum(listener.before.values()) > 10  # negative control: the count hears them
    assert len(outcome.position.history) == 5 and {r["event"] for r in outcome.position.history} > {None}
    assert programs.compiled == {}


def test_after_the_first_epoch_several_seeds_at_once_compile_nothing(trainer, network):
    with Programs() as programs:
        listener = AfterEpoch(programs, epoch=1)
        outcomes = trainer.run_at_once([(network(seed), seed, None) for seed in SEEDS], callbacks=[listener])
    assert sum(listener.before.values()) > 1
    assert [len(outcome.position.history) for outcome in outcomes] == [5, 5, 5]
    assert programs.compiled == {}


def test_a_second_seed_compiles_nothing_at_all(trainer, network):
    trainer.run(network(), seed=1)
    model = network(2)
    with Programs() as programs:
        trainer.run(model, seed=2)
    assert programs.compiled == {}
