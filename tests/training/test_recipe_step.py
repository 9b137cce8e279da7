"""Each field of a recipe that a step depends on reaches it: against a step built by hand, bit for bit."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnlab.data import build_augmentation
from cnnlab.training import Metrics, Recipe, Trainer, TrainState, cross_entropy, make_train_step
from cnnlab.training.averaging import make_averaging
from cnnlab.training.epoch import epoch_order
from cnnlab.training.recipe_step import make_recipe_step
from tests.training.linear import Linear

BATCH, STEPS, EPOCHS = 8, 2, 3
TX = optax.sgd(0.1, momentum=0.9)
smoothed = partial(cross_entropy, label_smoothing=0.3)
ema = partial(make_averaging, "ema", decay=0.4, total_steps=STEPS * EPOCHS)
lookahead = partial(make_averaging, "lookahead", decay=0.4, total_steps=STEPS * EPOCHS)
BY_HAND = {
    "plain": {},
    "smoothed": {"loss": smoothed},
    "noise": {"augment": build_augmentation(noise=0.2)},
    "flip": {"augment": build_augmentation(flip="alternating")},
    "ema": {"averaging": ema()},
    "ema of every 2nd step": {"averaging": ema(every=2)},
    "ema of every 4th step": {"averaging": ema(every=4)},
    "ema with a ramp": {"averaging": ema(ramp=2.0)},
    "ema with the ramp of a shorter run": {"averaging": ema(ramp=2.0, total_steps=EPOCHS)},
    "lookahead": {"averaging": lookahead()},
    "lookahead of another decay": {"averaging": lookahead(decay=0.999)},
    "lookahead of every 4th step": {"averaging": lookahead(every=4)},
    "lookahead of a longer run": {"averaging": lookahead(every=4, total_steps=STEPS * EPOCHS + 1)},
}
EMA, LOOKAHEAD = ({"average": kind, "average_decay": 0.4} for kind in ("ema", "lookahead"))
CASES = [
    # fields of a recipe, the step that they ask for, and that of somebody who forgets one of them
    ({}, "plain", "smoothed"),
    ({"label_smoothing": 0.3}, "smoothed", "plain"),
    ({"noise": 0.2}, "noise", "plain"),
    ({"flip": "alternating"}, "flip", "plain"),
    (EMA, "ema", "lookahead"),
    (LOOKAHEAD, "lookahead", "lookahead of another decay"),
    ({**EMA, "average_every": 2}, "ema of every 2nd step", "ema"),
    ({**EMA, "average_every": 2, "accumulate": 2}, "ema of every 4th step", "ema of every 2nd step"),  # of updates
    ({**EMA, "average_ramp": 2.0}, "ema with a ramp", "ema"),
    ({**EMA, "average_ramp": 2.0}, "ema with a ramp", "ema with the ramp of a shorter run"),
    ({**LOOKAHEAD, "average_every": 4}, "lookahead of every 4th step", "lookahead of a longer run"),
]


@pytest.fixture(scope="module")
def data(split):
    return split(BATCH * STEPS)


def batch_of(data, index, epoch):
    """The images at these places, with all that an augmentation may want to know."""
    return {"image": data.images[index], "label": data.labels[index], "index": index, "epoch": jnp.int32(epoch)}


def trained(step, data, *, average):
    """State and metrics after three epochs, batches in the order of the data."""
    state, heard = TrainState.create(Linear(), TX, seed=5, average=average), []
    for epoch in range(EPOCHS):
        for index in np.arange(BATCH * STEPS, dtype=np.int32).reshape(STEPS, BATCH):
            state, metrics = step(state, batch_of(data, index, epoch))
            heard.append(metrics)
    return state, heard


@pytest.fixture(scope="module")
def by_hand(data):
    """What the steps of BY_HAND come to, each trained once."""
    return cache(lambda name: trained(make_train_step(TX, **BY_HAND[name]), data, average="averaging" in BY_HAND[name]))


@pytest.mark.parametrize(("fields", "expected", "forgotten"), CASES, ids=[f"{a}, not {b}" for _, a, b in CASES])
def test_fields_of_a_recipe_make_the_step_that_one_would_build_by_hand(
    data, by_hand, differences, fields, expected, forgotten
):
    recipe = Recipe(epochs=EPOCHS, batch_size=BATCH, **fields)
    found = trained(make_recipe_step(TX, recipe, data, STEPS), data, average=recipe.average != "none")
    assert differences(found, by_hand(expected)) == []
    assert differences(found, by_hand(forgotten)) != []  # negative control


def test_a_step_that_is_not_jitted_gives_what_a_larger_program_makes_of_it(data):
    step = make_recipe_step(TX, Recipe(epochs=EPOCHS, batch_size=BATCH), data, STEPS, jit=False)
    state = TrainState.create(Linear(), TX)
    batch = {"image": jnp.asarray(data.images[:BATCH]), "label": jnp.asarray(data.labels[:BATCH])}
    after, _ = step(state, batch)
    assert not state.params["head"]["kernel"].is_deleted()  # nothing was donated
    assert int(after.step) == 1 and not hasattr(step, "lower")


ALL_AT_ONCE = dict(
    order="shuffled",
    schedule="constant",
    learning_rate=0.1,
    momentum=0.9,
    noise=0.2,
    flip="alternating",
    label_smoothing=0.3,
    average="lookahead",
    average_decay=0.4,
    average_every=4,
    average_ramp=2.0,
)


def test_a_run_is_the_steps_of_its_recipe_one_by_one(data, split):
    """rtol 1e-5: two float32 programs, the run's loop and a jitted step of parts put together by hand."""
    trainer = Trainer(Recipe(epochs=EPOCHS, batch_size=BATCH, **ALL_AT_ONCE), data, split(6, seed=1), "test")
    run = trainer.run(Linear(), seed=5)
    parts = {
        "loss": smoothed,
        "augment": build_augmentation(noise=0.2, flip="alternating"),
        "averaging": lookahead(every=4, ramp=2.0),
    }
    step, state = make_train_step(TX, **parts), TrainState.create(Linear(), TX, seed=5, average=True)
    for epoch in range(EPOCHS):
        order, total = np.asarray(epoch_order("shuffled", 5, epoch + 1, len(data))), Metrics.zero()
        for index in order.reshape(STEPS, BATCH):
            state, metrics = step(state, batch_of(data, index, epoch))
            total = total + metrics
        np.testing.assert_allclose(run.position.history[epoch]["train_loss"], float(total.loss), rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(run.last.params), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_run_ends_with_the_average_that_lookahead_has_never_moved(data, split, differences):
    """An update later than the run: its last step, and no other, puts the initial network back."""
    fields = {"average": "lookahead", "average_every": 100, "schedule": "constant", "epochs": EPOCHS}
    trainer = Trainer(Recipe(batch_size=BATCH, **fields), data, split(6, seed=1), "test")
    run = trainer.run(Linear())
    initial = TrainState.create(Linear(), TX).params
    assert differences(run.last.params, initial) == []
    losses = [record["train_loss"] for record in run.position.history]
    assert len(set(losses)) == EPOCHS  # it did train
