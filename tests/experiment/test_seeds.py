"""fit and resume with several seeds at once: folders, summary, ends, and which seeds go together."""

import json
import math
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.experiment import seed_groups
from cnnlab.experiment.seed_groups import group_seeds, measured_width, tell_width
from cnnlab.training import Callback, Recipe, Trainer, TrainingDiverged

pytest.importorskip("sklearn")

DATA = "digits?size=16"
SHORT = Recipe(name="short", epochs=3, batch_size=64, learning_rate=0.05, noise=0.05)


class Tiny(nnx.Module):
    """One dense layer: compiles in a moment."""

    def __init__(self, rngs):
        self.head = nnx.Linear(256, 10, rngs=rngs)

    def __call__(self, images):
        return self.head(images.reshape(images.shape[0], -1))


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CNNLAB_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


class StopInEpoch(Callback):
    """Press Ctrl-C when so many epochs have ended."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch(self, record):
        if record["epoch"] == self.epoch:
            signal.raise_signal(signal.SIGINT)


def fit(out, *, model=Tiny, recipe=SHORT, **options):
    return cnnlab.fit(model, DATA, recipe, out=out, **{"progress": False, "at_once": True, **options})


def leaves(tree):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def read(path):
    return json.loads(path.read_text())


def files(folder):
    """The names of all files but those of the checkpoints."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if "checkpoints" not in p.parts and p.is_file()}


def diverging(monkeypatch, seed, epoch):
    """Let the monitored loss of a seed be NaN in an epoch (its 21 steps make it up)."""
    evaluate = Trainer._evaluate

    def evaluate_or_not(self, state):
        bad = (int(state.seed), int(state.step)) == (seed, epoch * 21)
        return (math.nan, 0.1) if bad else evaluate(self, state)

    monkeypatch.setattr(Trainer, "_evaluate", evaluate_or_not)


@pytest.mark.slow
def test_seeds_at_once_reach_the_accuracies_of_separate_runs(tmp_path):
    """Two float32 programs: the same digits are right after three epochs, the weights, as vectors, agree to 1e-2."""
    common = {"model": "lenet", "model_options": {"hidden": [32]}}
    runs = fit(tmp_path / "both", seeds=[1, 5], **common)
    assert [run.folder.name for run in runs] == ["seed-1", "seed-5"] and not runs.interrupted
    for run in runs:
        alone = fit(tmp_path / "alone" if run.seed == 1 else None, seed=run.seed, **common)
        assert run.evaluation.accuracy == alone.evaluation.accuracy
        assert [r["accuracy"] for r in run.history] == [r["accuracy"] for r in alone.history]
        for ours, theirs in zip(leaves(run.last.params), leaves(alone.last.params), strict=True):
            assert np.linalg.norm(ours - theirs) <= 1e-2 * np.linalg.norm(theirs)
    assert files(tmp_path / "both" / "seed-1") == files(tmp_path / "alone")
    results = [read(folder / "result.json") for folder in (tmp_path / "both" / "seed-1", tmp_path / "alone")]
    assert results[0].keys() == results[1].keys() and results[0]["stop_reason"] == results[1]["stop_reason"]
    assert read(tmp_path / "both" / "summary.json")["seeds"] == [1, 5]
    assert (tmp_path / "both" / "report.html").is_file()
    assert runs[0].history[0]["train_loss"] != runs[1].history[0]["train_loss"]


@pytest.mark.slow
def test_interrupted_seeds_resume_by_their_parent_folder_bit_for_bit(tmp_path, capsys):
    with cnnlab.models.registry.REGISTRY.temporarily():

        @cnnlab.register_model
        def tiny(num_classes=10, *, rngs):
            """One dense layer."""
            return Tiny(rngs)

        unbroken = fit(None, model="tiny", seeds=[2, 0])
        common = {"model": "tiny", "seeds": [2, 0], "callbacks": [StopInEpoch(1)]}
        broken = fit(tmp_path / "a", progress=True, **common)
        assert broken.interrupted and len(broken) == 2 and all(len(run.history) == 1 for run in broken)
        assert "go on with:  cnnlab resume " + str(tmp_path / "a") + "\n" in capsys.readouterr().out
        resumed = cnnlab.resume(tmp_path / "a", progress=False)
        fit(tmp_path / "b", **common)
        alone = cnnlab.resume(tmp_path / "b", progress=False, at_once=False)
    assert [run.seed for run in resumed] == [0, 2]
    for run in resumed:
        expected = next(other for other in unbroken if other.seed == run.seed)
        for ours, theirs in zip(leaves(run.last.params), leaves(expected.last.params), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        other = next(other for other in alone if other.seed == run.seed)
        assert run.evaluation.accuracy == other.evaluation.accuracy == expected.evaluation.accuracy
        assert [r["accuracy"] for r in run.history] == [r["accuracy"] for r in other.history]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_seed_that_diverges_is_named_when_the_others_have_finished(tmp_path, monkeypatch, at_once):
    diverging(monkeypatch, seed=4, epoch=2)
    out = tmp_path / "run"
    text = "infinity: seed 4 in epoch 2; 1 of 2 seeds have finished and are kept in .*run; do lower learning_rate"
    with pytest.raises(TrainingDiverged, match=text) as caught:
        fit(out, seeds=[4, 5], at_once=at_once)
    assert caught.value.position.epoch == 2 and "\n" not in str(caught.value)
    result = read(out / "seed-4" / "result.json")
    assert result["stop_reason"].startswith("diverged in epoch 2 (") and result["evaluation"] is None
    assert (result["epochs"], result["best_epoch"]) == (2, 1)
    assert [row["seed"] for row in read(out / "summary.json")["rows"]] == [5]
    assert "diverged" in (out / "report.html").read_text()
    assert read(out / "seed-5" / "result.json")["epochs"] == 3


def place(epoch=0, step=0, together=(), stop_reason=None):
    meta = {"epoch": epoch, "step": step, "together": list(together), "stop_reason": stop_reason}
    return SimpleNamespace(last=SimpleNamespace(exists=lambda: True, meta=lambda: (0, meta)))


NEW = SimpleNamespace(last=SimpleNamespace(exists=lambda: False))
LANES = (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("places", "at_once", "width", "expected"),
    [
        ([NEW] * 4, None, 1, [([0], (0,)), ([1], (1,)), ([2], (2,)), ([3], (3,))]),
        ([NEW] * 4, None, 4, [([0, 1, 2, 3], LANES)]),
        ([NEW] * 4, None, 3, [([0, 1, 2], (0, 1, 2)), ([3], (3,))]),
        ([NEW] * 4, True, None, [([0, 1, 2, 3], LANES)]),
        ([NEW] * 2, False, None, [([0], (0,)), ([1], (1,))]),
        ([NEW], None, None, [([0], (0,))]),
        # At once before: in their lanes again, whoever has ended meanwhile; those that are behind for themselves.
        ([place(2, 3, LANES)] * 4, None, None, [([0, 1, 2, 3], LANES)]),
        ([place(2, 0, LANES, "converged"), place(3, 1, LANES)], None, None, [([0], (0,)), ([1], LANES)]),
        ([place(2, 0, LANES), place(1, 0, LANES), place(2, 0, LANES)], None, None, [([0, 2], LANES), ([1], LANES)]),
        ([place(2, 3, LANES)] * 2, False, None, [([0], (0,)), ([1], (1,))]),
        # Alone before, and one that had not begun.
        ([place(1, 2), place(1, 2), NEW], None, None, [([0], (0,)), ([1], (1,)), ([2], (2,))]),
        ([place(1, 2), place(1, 2), NEW], True, None, [([0, 1], (0, 1)), ([2], (2,))]),
    ],
)
def test_which_seeds_go_together(places, at_once, width, expected):
    def chosen(seeds):
        assert width is not None, "asked where it does not matter"
        return width

    found = group_seeds(list(enumerate(places)), resume=True, at_once=at_once, width=chosen)
    assert [([seed for seed, _ in group.todo], group.lanes) for group in found] == expected
    assert [group.resume for group in found] == [places[seeds[0]] is not NEW for seeds, _ in expected]


def test_on_a_cpu_nothing_is_measured_and_elsewhere_it_is_said(monkeypatch, capsys):
    seconds = {1: 0.001, 4: None, 2: 0.0015}
    trainer = SimpleNamespace(seconds_per_step=lambda network, seeds: seconds[len(seeds)])
    assert measured_width(None, None, [0, 1, 2, 3], progress=True) == 1
    monkeypatch.setattr(seed_groups.jax, "default_backend", lambda: "gpu")
    assert measured_width(trainer, None, [0, 1, 2, 3], progress=True) == 2
    line = "one seed takes 1 ms a step, 4 at once do not fit into memory, 2 at once take 1.5 ms a step: 2 at once"
    assert capsys.readouterr().out.startswith(f"{line} (measured in ")
    assert tell_width(1, {1: 0.001, 3: 0.004}, 2.0).endswith(
        "3 at once take 4 ms a step: one after the other (measured in 2.0 s)"
    )
