"""The trainer: what a run records, keeps and says, and why it stops."""

import copy
import json
import math
import signal
import threading
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cnnlab.training import Callback, Plateau, RecipeError, RunFolder, Trainer, TrainingDiverged, loop

IMAGES, MONITOR = 35, 20
KEYS = ["epoch", "train_loss", "train_accuracy", "monitor", "loss", "accuracy", "learning_rate"]
KEYS += ["best_accuracy", "best_epoch", "seconds", "images_per_second", "event"]


class Listener(Callback):
    """Writes down what it hears, and does something at an epoch or after some steps."""

    def __init__(self, log=None, name="", act=None):
        self.log = [] if log is None else log
        self._name, self._act = name, act or (lambda hook, *values: None)

    def _hear(self, hook, *values):
        self.log.append((self._name + hook, *values))
        self._act(hook, *values)

    def on_start(self, info):
        self._hear("start", info)

    def on_compile(self, seconds):
        self._hear("compile", seconds)

    def on_steps(self, epoch, done, total):
        self._hear("steps", epoch, done, total)

    def on_epoch(self, record):
        self._hear("epoch", record)

    def on_stop(self, reason):
        self._hear("stop", reason)


@pytest.fixture(scope="module")
def trainer(recipe, split):
    return Trainer(recipe(), split(IMAGES), split(MONITOR, seed=1), "test")


@pytest.fixture(scope="module")
def outcome(trainer, network):
    """One run in memory that several tests look at; `outcome.heard` is what a listener heard."""
    listener = Listener()
    outcome = trainer.run(network(), seed=3, callbacks=[listener])
    object.__setattr__(outcome, "heard", listener.log)
    return outcome


def with_recipe(trainer: Trainer, **changes) -> Trainer:
    """The same trainer under another recipe that needs the same compiled steps."""
    other = copy.copy(trainer)
    other.recipe = trainer.recipe.replace(**changes)
    return other


def scripted(trainer: Trainer, accuracies: list[float], **changes) -> Trainer:
    """A trainer whose monitor reports a hand-written list; the call before the first epoch only compiles."""
    other, values = with_recipe(trainer, epochs=len(accuracies), **changes), iter([0.0, *accuracies])
    other._evaluate = lambda state: (1.0, next(values))
    return other


def test_a_run_in_memory_completes_and_leaves_the_network_alone(trainer, network):
    model = network()
    before = jax.tree.map(np.array, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    outcome = trainer.run(model, seed=3)
    assert outcome.position.stop_reason == "completed all 4 epochs" and not outcome.interrupted
    assert (int(outcome.last.step), int(outcome.last.seed)) == (4 * 5, 3)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(model, nnx.Param)), before)
    assert model.dropout.deterministic is False and outcome.best.dropout.deterministic is True


def test_the_records_have_the_documented_keys_and_agree_with_each_other(outcome):
    history, best = outcome.position.history, 0.0
    assert [list(record) for record in history] == [KEYS] * 4
    assert [record["epoch"] for record in history] == [1, 2, 3, 4]
    rule = Plateau(learning_rate=0.01, patience=1)
    for record in history:
        best = max(best, record["accuracy"])
        assert record["best_accuracy"] == best
        assert history[record["best_epoch"] - 1]["accuracy"] == best
        assert record["learning_rate"] == rule.learning_rate
        rule = rule.update(record["accuracy"])
        assert record["event"] == rule.event
        assert record["monitor"] == "test"
        assert (record["train_accuracy"] * IMAGES) == pytest.approx(round(record["train_accuracy"] * IMAGES))
        assert (record["accuracy"] * MONITOR) == pytest.approx(round(record["accuracy"] * MONITOR))
        assert all(math.isfinite(record[k]) for k in ("train_loss", "loss")) and record["seconds"] > 0
        assert record["images_per_second"] >= IMAGES / record["seconds"]  # evaluation is not training
    assert outcome.position.plateau == rule
    assert json.loads(json.dumps(history)) == history


def test_the_clock_adds_up(outcome):
    position = outcome.position
    assert position.train_seconds == pytest.approx(sum(r["seconds"] for r in position.history))
    assert (position.step, position.sums, position.epoch_seconds) == (0, (0.0, 0, 0), 0.0)
    assert position.compile_seconds > 0


def test_the_best_network_is_that_of_the_best_epoch(trainer, network, split, run_differences):
    run = scripted(trainer, [0.3, 0.6, 0.5, 0.4]).run(network(), seed=3)
    two = scripted(trainer, [0.3, 0.6]).run(network(), seed=3)
    one = scripted(trainer, [0.3]).run(network(), seed=3)
    assert (run.position.plateau.best_epoch, run.position.plateau.best) == (2, 0.6)

    def head(model):
        return np.asarray(model.head.kernel[...])

    np.testing.assert_array_equal(head(run.best), head(two.last.model))
    assert not np.array_equal(head(run.best), head(one.last.model))
    assert not np.array_equal(head(run.best), head(run.last.model))


def test_the_best_network_reaches_the_best_accuracy_when_measured_again(outcome, split):
    monitor = split(MONITOR, seed=1)
    logits = outcome.best(jnp.asarray(monitor.images) / 255.0)
    accuracy = (np.asarray(logits).argmax(axis=1) == monitor.labels).mean()
    assert accuracy == outcome.position.plateau.best


def test_the_folder_holds_what_the_run_gives_back(tmp_path, trainer, network, outcome, run_differences, differences):
    folder = RunFolder.create(tmp_path / "run")
    run = trainer.run(network(), seed=3, folder=folder)
    assert run_differences(run, outcome) == []  # with or without a folder
    assert folder.read_metrics() == run.position.history
    step, last, meta = folder.last.load(run.last)
    assert step == 20 and differences(last, run.last) == []
    assert meta == json.loads(json.dumps(run.position.to_dict()))
    best_epoch, _, meta = folder.best.load({"params": run.last.params, "extra": run.last.extra})
    assert best_epoch == run.position.plateau.best_epoch == meta["epoch"]
    assert meta["accuracy"] == run.position.plateau.best


def test_the_same_seed_gives_the_same_run_and_seeds_leak_nothing_into_each_other(
    trainer, network, outcome, run_differences
):
    other = trainer.run(network(), seed=4)
    assert run_differences(trainer.run(network(), seed=3), outcome) == []
    found = run_differences(other, outcome)
    assert "last.params['head']['kernel']" in found and "epoch 1" in found


def test_nothing_is_compiled_for_the_second_seed(trainer, network):
    trainer.run(network())
    listener = Listener()
    programs = dict(trainer._epoch._compiled)
    trainer.run(network(1), seed=1, callbacks=[listener])
    assert trainer._epoch._compiled == programs


def test_but_for_a_first_step_alone_an_epoch_is_a_call_for_whole_batches_and_one_for_the_rest(
    trainer, network, monkeypatch
):
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_REPORTS", 1e9)
    trainer.run(network())  # compiles
    calls = []
    for key, program in trainer._epoch._compiled.items():
        noted = lambda *a, program=program, size=key[1]: calls.append(size) or program.call(*a)  # noqa: E731
        monkeypatch.setitem(trainer._epoch._compiled, key, program._replace(call=noted))
    trainer.run(network())
    assert calls == [8] * (jax.default_backend() == "cpu") + [8, 3] * trainer.recipe.epochs


def test_listeners_hear_all_five_hooks_in_order(trainer, network, outcome):
    heard = outcome.heard
    assert [entry[0] for entry in heard[:3]] == ["start", "compile", "compile"]
    info = heard[0][1]
    assert info.pop("recipe") == trainer.recipe
    assert info == {
        "seed": 3,
        "parameters": 16 * 8 + 8 + 2 * 8 + 8 * 3 + 3,
        "trained": 16 * 8 + 8 + 2 * 8 + 8 * 3 + 3,
        "train_images": IMAGES,
        "monitor_images": MONITOR,
        "monitor": "test",
        "steps_per_epoch": 5,
        "epochs": 4,
        "epoch": 0,
    }
    assert heard[1] == ("compile", None) and heard[2][1] > 0
    whole = [entry for entry in heard[3:] if entry[0] != "steps" or entry[2] == entry[3]]
    assert [entry[0] for entry in whole] == ["steps", "epoch"] * 4 + ["stop"]
    assert heard[3] == ("steps", 1, 1, 5), "the first step alone"
    assert [entry[1] for entry in heard if entry[0] == "epoch"] == outcome.position.history
    assert heard[-1] == ("stop", "completed all 4 epochs")


def test_several_listeners_hear_each_thing_in_their_order(trainer, network):
    log = []
    with_recipe(trainer, epochs=1).run(network(), callbacks=[Listener(log, "a "), Listener(log, "b ")])
    assert [entry[0] for entry in log[:4]] == ["a start", "b start", "a compile", "b compile"]
    assert [entry[0] for entry in log[-4:]] == ["a epoch", "b epoch", "a stop", "b stop"]


def test_the_steps_are_reported_in_pieces(trainer, network, monkeypatch):
    monkeypatch.setattr(loop, "_SECONDS_BETWEEN_REPORTS", 1e-9)
    other, listener = with_recipe(trainer, epochs=1), Listener()
    other.run(network(), callbacks=[listener])
    assert [entry[1:] for entry in listener.log if entry[0] == "steps"] == [(1, n, 5) for n in (1, 2, 3, 4, 5)]


def test_after_a_first_step_alone_the_pieces_last_two_seconds_and_a_short_rest_is_no_piece(
    recipe, split, network, monkeypatch
):
    trainer = Trainer(recipe(epochs=1, batch_size=2), split(72), split(MONITOR), "test")
    run, clock, listener = trainer._epoch.run, [0.0], Listener()

    def timed(state, totals, data, order, start, stop):
        clock[0] += (stop - start) / 8  # seconds
        return run(state, totals, data, order, start, stop)

    monkeypatch.setattr(trainer._epoch, "run", timed)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    for _ in range(2):  # the second run knows nothing of the first one's rate
        listener.log.clear()
        trainer.run(network(), callbacks=[listener])
        assert [entry[2] for entry in listener.log if entry[0] == "steps"] == [1, 17, 36]  # not 33 and 36


def test_a_run_stops_at_the_target(trainer, network):
    run = scripted(trainer, [0.5, 0.9, 1.0], target_accuracy=0.9).run(network())
    assert run.position.stop_reason == "reached the target accuracy of 90.0% in epoch 2"
    assert run.position.history[-1]["event"] == "target" and not run.interrupted


def test_a_run_stops_when_what_it_trains_on_is_right_often_enough(trainer, network, outcome, run_differences):
    seen = [record["train_accuracy"] for record in outcome.position.history]
    target = seen[1]
    assert seen[0] < target  # else the run would stop in its first epoch
    run = with_recipe(trainer, target_train_accuracy=target).run(network(), seed=3)
    assert run.position.stop_reason == f"reached the training accuracy of {target:.1%} in epoch 2"
    assert [record["train_accuracy"] for record in run.position.history] == seen[:2]
    assert run.position.history[-1]["event"] == "target" and not run.interrupted
    above = with_recipe(trainer, target_train_accuracy=np.nextafter(max(seen), 1)).run(network(), seed=3)
    assert run_differences(above, outcome) == []


@pytest.mark.parametrize(
    ("target_accuracy", "reason"),
    [
        (0.9, "reached the target accuracy of 90.0% in epoch 1"),
        (2.0, "reached the training accuracy of 0.0% in epoch 1"),  # which was the last one too
    ],
)
def test_of_two_reasons_to_stop_the_one_that_says_more_is_given(trainer, network, target_accuracy, reason):
    targets = {"target_accuracy": target_accuracy, "target_train_accuracy": 0.0}
    run = scripted(trainer, [0.9], **targets).run(network())
    assert (run.position.stop_reason, run.position.history[-1]["event"]) == (reason, "target")


def test_a_run_cuts_its_rate_and_stops_when_it_has_converged(trainer, network):
    accuracies = [0.5] + [0.4] * 9
    run = scripted(trainer, accuracies, minimum_learning_rate=1e-3, convergence_patience=3).run(network())
    history = run.position.history
    assert [r["learning_rate"] for r in history] == [0.01, 0.01, 0.001, 0.001, 0.001]
    assert [r["event"] for r in history] == [None, "cut", None, None, "converged"]
    assert run.position.stop_reason == "converged at epoch 5: no improvement for 3 epochs at the lowest rate"
    assert float(run.last.learning_rate_scale) == np.float32(0.001)


def test_the_rate_of_the_rule_is_the_rate_of_the_steps(trainer, network):
    """With the rate at 1e-30 from the first epoch on nothing moves; at 0.01 everything does."""
    start = np.asarray(network().head.kernel[...])
    still = scripted(trainer, [0.5], learning_rate=1e-30).run(network())
    moved = scripted(trainer, [0.5]).run(network())
    np.testing.assert_array_equal(still.last.params["head"]["kernel"], start)
    assert not np.array_equal(moved.last.params["head"]["kernel"], start)


def test_without_the_plateau_rule_the_best_is_kept_and_the_rate_is_that_of_the_schedule(recipe, split, network):
    cosine = recipe(epochs=3, schedule="cosine", learning_rate=0.1, warmup_epochs=1, plateau_patience=1)
    run = Trainer(cosine, split(IMAGES), split(MONITOR, seed=1), "validation").run(network())
    rates = [record["learning_rate"] for record in run.position.history]  # of the last step of each epoch
    expected = [0.1 * 4 / 5, *(0.05 * (1 + math.cos(math.pi * n / 10)) for n in (4, 9))]
    np.testing.assert_allclose(rates, expected, rtol=1e-5)
    assert [record["event"] for record in run.position.history] == [None] * 3
    assert {record["monitor"] for record in run.position.history} == {"validation"}
    assert float(run.last.learning_rate_scale) == 1.0


def test_a_huge_rate_ends_in_one_line_that_says_where_and_what_to_do(recipe, split, network, tmp_path):
    huge = recipe(epochs=50, learning_rate=1e6, plateau_patience=50)
    folder, listener = RunFolder.create(tmp_path / "run"), Listener()
    trainer = Trainer(huge, split(IMAGES), split(MONITOR, seed=1), "test")
    with pytest.raises(TrainingDiverged) as caught:
        trainer.run(network(), folder=folder, callbacks=[listener])
    text = str(caught.value)
    assert text.startswith("Expected finite parameters and losses, got NaN or infinity in epoch ")
    assert text.endswith("; do lower learning_rate (1e+06).") and "\n" not in text
    assert listener.log[-1][0] == "stop" and listener.log[-1][1].startswith("diverged in epoch ")
    position, records = caught.value.position, folder.read_metrics()
    assert position.stop_reason.startswith(f"diverged in epoch {position.epoch} (training loss ")
    assert position.stop_reason.endswith("); do lower learning_rate (1e+06)")
    assert [record["epoch"] for record in records] == list(range(1, position.epoch + 1))
    assert [list(record) for record in records] == [KEYS] * position.epoch
    assert [record["event"] for record in records if record["event"]] == ["diverged"] and records[-1]["event"]
    assert position.history[-1]["epoch"] == position.epoch


def test_when_a_run_diverges_the_best_epoch_is_on_disk_even_if_it_was_not_yet_time_to_save(trainer, network, tmp_path):
    other = scripted(trainer, [0.3, 0.6, 0.5, 0.4])
    epoch, ends = copy.copy(other._epoch), []

    def run(state, totals, data, order, start, stop):
        state, totals = epoch.run(state, totals, data, order, start, stop)
        if stop == 5:
            ends.append(jax.tree.map(np.array, state.params))
        return state, totals._replace(loss_sum=totals.loss_sum * (jnp.nan if len(ends) == 3 else 1))

    other._epoch = copy.copy(epoch)
    other._epoch.run = run
    folder = RunFolder.create(tmp_path / "run")
    with pytest.raises(
        TrainingDiverged, match=r"in epoch 3 \(training loss nan\); epoch 2 \(60.00%\) is kept in .*run"
    ):
        other.run(network(), folder=folder)
    like = trainer.run(network()).last
    step, best, meta = folder.best.load({"params": like.params, "extra": like.extra})
    assert (step, meta) == (2, {"epoch": 2, "accuracy": 0.6})
    jax.tree.map(np.testing.assert_array_equal, best["params"], ends[1])
    assert [record["epoch"] for record in folder.read_metrics()] == [1, 2, 3]
    last = folder.read_metrics()[-1]
    assert last["train_loss"] is None and (last["event"], last["best_epoch"], last["best_accuracy"]) == (
        "diverged",
        2,
        0.6,
    )


def test_a_run_that_diverges_at_once_has_no_best_and_no_accuracy_that_means_nothing(trainer, network, tmp_path):
    other = with_recipe(trainer)
    other._evaluate = lambda state: (math.nan, 0.4)
    folder = RunFolder.create(tmp_path / "run")
    with pytest.raises(TrainingDiverged, match="in epoch 1 .*; no earlier epoch is kept; do lower") as caught:
        other.run(network(), folder=folder)
    assert caught.value.position.best == (None, None)
    (record,) = folder.read_metrics()
    assert [record[key] for key in ("loss", "accuracy", "best_accuracy", "best_epoch")] == [None] * 4
    assert record["train_loss"] > 0 and not folder.best.exists()


def test_too_few_images_are_an_error_that_says_what_to_do(recipe, split):
    with pytest.raises(RecipeError, match="Expected at least one training image, got none; do hold out fewer"):
        Trainer(recipe(), split(0), split(3), "test")
    with pytest.raises(RecipeError, match="Expected at least one validation image, got none"):
        Trainer(recipe(), split(3), split(0), "validation")
    with pytest.raises(RecipeError, match="Expected at least one batch of 8 in 7 training images; do lower batch_size"):
        Trainer(recipe(last_batch="drop"), split(7), split(3), "test")


def test_more_batches_for_an_update_than_the_run_has_are_an_error(recipe, split):
    text = (
        "Expected accumulate up to the 6 batches of all epochs, got 7, with which nothing would be updated; do lower it"
    )
    with pytest.raises(RecipeError, match=text):
        Trainer(recipe(epochs=2, accumulate=7), split(20), split(3), "test")
    Trainer(recipe(epochs=2, accumulate=6), split(20), split(3), "test")


def test_the_handlers_of_signals_are_put_back_whatever_happens(trainer, network):
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]

    def fail(hook, *values):
        if hook == "epoch":
            assert signal.getsignal(signal.SIGINT) != before[0]
            raise OSError("a listener failed")

    with_recipe(trainer, epochs=1).run(network())
    assert [signal.getsignal(number) for number in numbers] == before
    with pytest.raises(OSError, match="a listener failed"):
        trainer.run(network(), callbacks=[Listener(act=fail)])
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_run_in_another_thread_works_and_is_the_same(trainer, network, outcome, run_differences):
    runs = []
    thread = threading.Thread(target=lambda: runs.append(trainer.run(network(), seed=3)))
    thread.start()
    thread.join(timeout=60)
    assert run_differences(runs[0], outcome) == []
