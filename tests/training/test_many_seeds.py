"""Seeds that train at once: the numbers of separate runs, each with its own rule, end and checkpoints.

A program over several seeds is another program than that over one, so that its numbers differ by rounding; within it,
lanes share nothing, and going on gives the same bits.
"""

import copy
import io
import math
import signal
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.layers import Conv
from cnnlab.training import Callback, RunFolder, Trainer, TrainingDiverged, loop
from cnnlab.training.many_seeds import choose_width, fits, lane_of, stack
from cnnlab.training.progress import console_progress
from tests.training.convolutional import Convolutional

SEEDS = [3, 0, 7]
STEPS = 5  # of an epoch
# Of all numbers together, as one vector, after 20 steps of two float32 programs. Not number by number: a bias before a
# norm has a gradient of pure rounding.
TOLERANCE = 1e-4

RECIPES = {
    "sgd": {},
    "adamw": dict(
        order="dataset",
        optimizer="adamw",
        schedule="cosine",
        accumulate=2,
        average="ema",
        average_decay=0.9,
        clip_norm=1.0,
        flip="alternating",
        freeze=["first.bias"],  # its gradient is nothing but rounding, before a norm, which Adam blows up
    ),
}


class Stop(Callback):
    """Press Ctrl-C at a moment, (epoch, steps) or (epoch, None) for its end."""

    def __init__(self, moment):
        self.moment = moment

    def on_steps(self, epoch, done, total):
        if self.moment == (epoch, done):
            signal.raise_signal(signal.SIGINT)

    def on_epoch(self, record):
        if self.moment == (record["epoch"], None):
            signal.raise_signal(signal.SIGINT)


@pytest.fixture(scope="module", autouse=True)
def every_step_is_a_place_to_stop_at():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_SECONDS_BETWEEN_REPORTS", 1e-9)
        yield


def make_trainer(recipe, split, **changes):
    return Trainer(recipe(**changes), split(35), split(20, seed=1), "test")


@pytest.fixture(scope="module")
def trainer(recipe, split):
    """A trainer with `traces`, which grows with every trace of the step."""
    trainer = make_trainer(recipe, split)
    step, trainer.traces = trainer._epoch._step, []
    trainer._epoch._step = lambda state, batch: trainer.traces.append(batch["label"].shape) or step(state, batch)
    return trainer


@pytest.fixture(scope="module")
def unbroken(trainer, network):
    return at_once(trainer, network)


def at_once(trainer, network, folders=None, seeds=SEEDS, **options):
    folders = folders or [None] * len(seeds)
    return trainer.run_at_once([(network(s), s, f) for s, f in zip(seeds, folders, strict=True)], **options)


def scripted(trainer, accuracies, **changes):
    """A trainer whose monitor reports, after each epoch, what a list per seed says."""
    other = copy.copy(trainer)
    other.recipe = trainer.recipe.replace(**changes)
    other._evaluate = lambda state: (1.0, accuracies[int(state.seed)][int(state.step) // STEPS - 1])
    return other


def make_folders(tmp_path, seeds=SEEDS):
    return [RunFolder.create(tmp_path / f"seed-{seed}") for seed in seeds]


def assert_close(one, other):
    """Floating point numbers within TOLERANCE, all others (counters, random keys) exactly."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    for a, b in pairs:
        assert a.shape == b.shape and a.dtype == b.dtype
        assert jnp.issubdtype(a.dtype, jnp.floating) or bool((a == b).all())
    floats = [pair for pair in pairs if jnp.issubdtype(pair[0].dtype, jnp.floating)]
    assert distance(*zip(*floats, strict=True)) < TOLERANCE


def distance(ours, theirs):
    """The difference of two lists of arrays as vectors, relative to the second."""
    ours, theirs = (np.concatenate([np.ravel(x) for x in of]).astype(np.float64) for of in (ours, theirs))
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.parametrize("kind", ["sgd", pytest.param("adamw", marks=pytest.mark.slow)])
def test_each_seed_gets_the_numbers_of_a_separate_run(recipe, split, network, kind):
    trainer = make_trainer(recipe, split, **RECIPES[kind])
    for seed, outcome in zip(SEEDS, at_once(trainer, network), strict=True):
        alone = trainer.run(network(seed), seed=seed)
        assert_close(outcome.last, alone.last)
        assert_close(nnx.state(outcome.best), nnx.state(alone.best))
        assert outcome.position.stop_reason == alone.position.stop_reason == "completed all 4 epochs"
        for ours, theirs in zip(outcome.position.history, alone.position.history, strict=True):
            assert list(ours) == list(theirs)
            for key in ("accuracy", "learning_rate", "event", "best_epoch", "train_accuracy", "epoch"):
                assert ours[key] == theirs[key], key
            np.testing.assert_allclose(ours["train_loss"], theirs["train_loss"], rtol=1e-4)
    other = trainer.run(network(SEEDS[0]), seed=9)  # negative control: the seed of the noise alone
    assert distance(*map(jax.tree.leaves, (other.last.params, alone.last.params))) > 10 * TOLERANCE


def test_each_seed_of_a_network_of_convolutions_gets_the_numbers_of_a_separate_run(recipe, split):
    network = lambda seed: Convolutional(nnx.Rngs(seed), Conv)  # noqa: E731
    trainer = make_trainer(recipe, split)
    for seed, outcome in zip(SEEDS, at_once(trainer, network), strict=True):
        alone = trainer.run(network(seed), seed=seed)
        assert_close(outcome.last, alone.last)
        assert [r["accuracy"] for r in outcome.position.history] == [r["accuracy"] for r in alone.position.history]


def test_nothing_is_traced_again_in_later_epochs_nor_for_other_seeds(trainer, network, unbroken):
    before = list(trainer.traces)
    assert set(before) == {(8,), (3,)}
    at_once(trainer, network, seeds=[1, 2, 4])
    assert trainer.traces == before
    at_once(trainer, network, seeds=[1, 2])  # negative control: another number of seeds
    assert trainer.traces == [*before, (8,), (3,)]


def test_every_seed_has_its_own_rule_and_end(trainer, network, differences, tmp_path):
    rising, flat = [0.1, 0.2, 0.3, 0.4], [0.5, 0.4, 0.4, 0.4]
    script = {3: [0.1, 0.9, 0.0, 0.0], 0: rising, 7: flat}
    folders = make_folders(tmp_path)
    stopped, going, cut = at_once(scripted(trainer, script, target_accuracy=0.9), network, folders)
    assert stopped.position.stop_reason == "reached the target accuracy of 90.0% in epoch 2"
    assert (len(stopped.position.history), int(stopped.last.step)) == (2, 2 * STEPS)
    assert [r["learning_rate"] for r in going.position.history] == [0.01] * 4
    assert [r["event"] for r in cut.position.history] == [None, "cut", "cut", "cut"]
    assert [r["learning_rate"] for r in cut.position.history] == [0.01, 0.01, 0.001, 0.0001]
    assert (cut.position.plateau.best_epoch, going.position.plateau.best_epoch) == (1, 4)

    # Bit for bit the state at its stop, in memory and on disk; and what it does afterwards is nobody's business.
    short = at_once(scripted(trainer, script, epochs=2, target_accuracy=0.9), network)
    assert differences(stopped.last, short[0].last) == []
    assert differences(nnx.state(stopped.best), nnx.state(short[0].best)) == []
    assert differences(nnx.state(cut.best), nnx.state(short[2].best)) == []
    assert differences(folders[0].last.load(stopped.last)[1], stopped.last) == []
    assert [len(folder.read_metrics()) for folder in folders] == [2, 4, 4]
    others = at_once(scripted(trainer, {**script, 3: rising}, target_accuracy=0.9), network)
    assert differences(others[1].last, going.last) == differences(others[2].last, cut.last) == []


def test_each_seed_stops_at_the_training_accuracy_by_itself_also_after_an_interruption(
    trainer, network, unbroken, run_differences, tmp_path
):
    seen = [[record["train_accuracy"] for record in outcome.position.history] for outcome in unbroken]
    target = sorted(max(each) for each in seen)[1]  # which the seed with the lowest highest accuracy never reaches
    ends = [next((n for n, value in enumerate(each, 1) if value >= target), None) for each in seen]
    assert None in ends and len(set(ends)) > 1
    steered = copy.copy(trainer)
    steered.recipe = trainer.recipe.replace(target_train_accuracy=target)
    outcomes = at_once(steered, network)
    reached = f"reached the training accuracy of {target:.1%} in epoch "
    reasons = [f"{reached}{end}" if end else "completed all 4 epochs" for end in ends]
    assert [outcome.position.stop_reason for outcome in outcomes] == reasons

    folders = make_folders(tmp_path)
    at_once(steered, network, folders, callbacks=[Stop((min(filter(None, ends)), 2))])
    again = steered.run_at_once([(network(99), 77, folder) for folder in folders], lanes=SEEDS, resume=True)
    assert [run_differences(a, b) for a, b in zip(again, outcomes, strict=True)] == [[]] * 3


def test_a_seed_that_diverges_harms_no_other(trainer, network, unbroken, run_differences, tmp_path):
    folders = make_folders(tmp_path)
    todo = [(network(seed), seed, folder) for seed, folder in zip(SEEDS, folders, strict=True)]
    todo[1][0].head.kernel[...] *= 1e30
    heard = []

    class Listen(Callback):
        def on_epoch(self, record):
            heard.append(record)

        def on_stop(self, reason):
            heard.append(reason)

    first, diverged, last = trainer.run_at_once(todo, callbacks=[Listen()])
    assert run_differences(first, unbroken[0]) == run_differences(last, unbroken[2]) == []
    assert isinstance(diverged, TrainingDiverged) and diverged.position.epoch == 1
    assert str(diverged).startswith("Expected finite parameters and losses, got NaN or infinity in epoch 1 (training ")
    (record,) = folders[1].read_metrics()
    assert record["event"] == "diverged" and not folders[1].last.exists()
    assert [len(folder.read_metrics()) for folder in folders] == [4, 1, 4]
    assert [(list(r["seeds"]), r["training"]) for r in heard[:-1]] == [([3, 7], 2)] * 3 + [([3, 7], 0)]
    assert all(math.isfinite(r["loss"]) for r in heard[:-1])
    assert heard[-1] == "seeds 3, 7 completed all 4 epochs; seed 0 diverged in epoch 1"


@pytest.mark.parametrize("moment", [(1, 2), (3, 5), (2, None)])
def test_interrupted_seeds_that_go_on_equal_the_unbroken_ones(
    trainer, network, unbroken, run_differences, tmp_path, moment
):
    folders = make_folders(tmp_path)
    stopped = at_once(trainer, network, folders, callbacks=[Stop(moment)])
    assert all(outcome.interrupted for outcome in stopped)
    places = [folder.last.meta()[1] for folder in folders]
    assert len({(p["epoch"], p["step"]) for p in places}) == 1 and places[0]["together"] == SEEDS
    again = trainer.run_at_once([(network(99), 77, folder) for folder in folders], lanes=SEEDS, resume=True)
    assert [run_differences(a, b) for a, b in zip(again, unbroken, strict=True)] == [[]] * 3
    assert [[r["epoch"] for r in folder.read_metrics()] for folder in folders] == [[1, 2, 3, 4]] * 3


def test_seeds_go_on_to_the_same_bits_after_others_have_ended(trainer, network, run_differences, tmp_path):
    rising = [0.1, 0.2, 0.3, 0.4]
    steered = scripted(trainer, {3: [0.1, 0.9, 0.0, 0.0], 0: rising, 7: rising}, target_accuracy=0.9)
    unbroken, folders = at_once(steered, network), make_folders(tmp_path)
    at_once(steered, network, folders, callbacks=[Stop((3, 2))])
    left = [(network(seed), seed, folder) for seed, folder in list(zip(SEEDS, folders, strict=True))[1:]]
    again = steered.run_at_once(left, lanes=SEEDS, resume=True)
    assert [run_differences(a, b) for a, b in zip(again, unbroken[1:], strict=True)] == [[], []]


def test_from_at_once_one_can_change_to_one_after_the_other(trainer, network, unbroken, tmp_path):
    folders = make_folders(tmp_path)
    at_once(trainer, network, folders, callbacks=[Stop((2, 3))])
    for folder, expected in zip(folders, unbroken, strict=True):
        outcome = trainer.run(network(99), folder=folder, resume=True)
        assert_close(outcome.last, expected.last)
        assert outcome.position.together == [] and not outcome.interrupted


def test_runs_that_do_not_stand_at_the_same_step_are_not_trained_at_once(trainer, network, tmp_path):
    folders = make_folders(tmp_path, [0, 1])
    for seed, (folder, moment) in enumerate(zip(folders, [(1, 2), (2, 3)], strict=True)):
        trainer.run(network(seed), seed=seed, folder=folder, callbacks=[Stop(moment)])
    with pytest.raises(ValueError, match="Expected runs that stand at the same step to train at once, got others"):
        trainer.run_at_once([(network(), 0, folder) for folder in folders], resume=True)
    with pytest.raises(ValueError, match=r"Expected every seed once to train at once, got \[2, 2\]; do name each once"):
        trainer.run_at_once([(network(), 2, None), (network(), 2, None)])


def test_one_live_line_per_epoch_tells_of_all_seeds(trainer, network):
    stream = io.StringIO()
    at_once(trainer, network, callbacks=[console_progress("net on data", "rows", None, stream)])
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith("recipe small, seeds 3, 0, 7 at once")
    epochs = [line for line in lines if line.startswith("epoch")]
    assert [line.split("(means of 3)  ")[1][:8] for line in epochs] == ["3 go on "] * 3 + ["0 go on "]
    assert lines[-1] == "seeds 3, 0, 7 completed all 4 epochs"


def test_what_listeners_hear_of_an_epoch_are_means_and_the_sum_of_speeds(trainer, network):
    heard = []

    class Listen(Callback):
        def on_epoch(self, record):
            heard.append(record)

    outcomes = at_once(trainer, network, callbacks=[Listen()])
    for number, record in enumerate(heard):
        each = [outcome.position.history[number] for outcome in outcomes]
        assert list(record["seeds"].values()) == each and list(record["seeds"]) == SEEDS
        for key in ("train_loss", "accuracy", "best_accuracy", "learning_rate"):
            assert record[key] == pytest.approx(np.mean([r[key] for r in each]), rel=1e-12)
        assert record["images_per_second"] == pytest.approx(sum(r["images_per_second"] for r in each))
        assert record["seconds"] >= max(r["seconds"] for r in each) * 0.999


@pytest.mark.parametrize(
    ("seconds", "width", "asked"),
    [
        ({1: 1.0, 8: 4.0}, 8, [1, 8]),  # at once is twice as fast
        ({1: 1.0, 8: 8.0}, 1, [1, 8]),  # nothing gained
        ({1: 1.0, 8: 9.0}, 1, [1, 8]),
        ({1: 1.0, 8: None, 4: 2.0}, 4, [1, 8, 4]),  # memory for half of them
        ({1: 1.0, 8: None, 4: None, 2: None}, 1, [1, 8, 4, 2]),
        ({1: 1.0, 8: None, 4: None, 2: 2.1}, 1, [1, 8, 4, 2]),
        ({1: None}, 1, [1]),
    ],
)
def test_as_many_seeds_train_at_once_as_memory_allows_if_that_is_faster(seconds, width, asked):
    heard = []
    assert choose_width(8, lambda count: heard.append(count) or seconds[count]) == width
    assert heard == asked


def test_odd_numbers_of_seeds_are_halved_upwards_and_end_at_one():
    heard = []
    assert choose_width(5, lambda count: heard.append(count) or (1.0 if count == 1 else None)) == 1
    assert heard == [1, 5, 3, 2]


def test_a_program_fits_when_a_tenth_of_the_free_memory_stays_free(monkeypatch):
    device = SimpleNamespace(memory_stats=lambda: {"bytes_limit": 1100, "bytes_in_use": 100})
    monkeypatch.setattr(jax, "devices", lambda: [device])

    def program(temporaries):
        analysis = SimpleNamespace(
            temp_size_in_bytes=temporaries, output_size_in_bytes=300, alias_size_in_bytes=200, argument_size_in_bytes=9
        )
        return SimpleNamespace(memory_analysis=lambda: analysis)

    assert fits(program(800)) and not fits(program(801))
    device.memory_stats = lambda: None  # a CPU
    assert fits(program(10**12))


def test_measuring_takes_the_time_of_a_step_and_none_where_memory_ends(trainer, network, monkeypatch):
    assert 0 < trainer.seconds_per_step(network(), SEEDS) < 10

    def fail(*arguments):
        raise jax.errors.JaxRuntimeError(text)

    monkeypatch.setattr(trainer._epoch, "run", fail)
    text = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes."
    assert trainer.seconds_per_step(network(), SEEDS) is None
    text = "INTERNAL: something else"
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        trainer.seconds_per_step(network(), SEEDS)


def test_a_stack_of_states_gives_each_back(trainer, network, differences):
    states = [trainer._begin(network(seed), seed) for seed in SEEDS]
    stacked = stack(states)
    assert [differences(lane_of(stacked, i), state) for i, state in enumerate(states)] == [[]] * 3
    assert stack(states[:1]) is states[0] is lane_of(states[0], 0)
