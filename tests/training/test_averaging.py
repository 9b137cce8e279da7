"""Averages of the weights against loops in NumPy (rtol 1e-6), inside steps, programs and whole runs."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnlab.training import Trainer, TrainState, make_eval_step, make_train_step
from cnnlab.training.averaging import make_averaging

STEPS = 13
RNG = np.random.default_rng(0)
MOVES = RNG.normal(size=(STEPS, 4))


def averaged(update, steps: int = STEPS):
    """The average and the network after each step; every step moves the network on from where it is."""
    average = network = jnp.zeros(4)
    found = []
    for step in range(1, steps + 1):
        average, network = update(average, network + jnp.float32(MOVES[step - 1]), jnp.int32(step))
        found.append((np.asarray(average), np.asarray(network)))
    return found


def by_hand(kind: str, share, every: int, total: int = STEPS):
    average, network, found = np.zeros(4), np.zeros(4), []
    for step in range(1, STEPS + 1):
        network = network + MOVES[step - 1]
        if step % every == 0:
            a = share(step)
            average = a * average + (1 - a) * network
        if kind == "lookahead" and (step % every == 0 or step == total):
            network = average
        found.append((average, network))
    return found


def assert_close(got, expected):
    for (average, network), (a, n) in zip(got, expected, strict=True):
        np.testing.assert_allclose(average, a, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(network, n, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("decay", [0.3, 0.999])
def test_a_moving_average_forgets_the_start_soon_and_leaves_the_network_alone(decay, every):
    got = averaged(make_averaging("ema", decay=decay, every=every, total_steps=STEPS))
    expected = by_hand("ema", lambda step: min(decay, step // every / (9 + step // every)), every)
    assert_close(got, expected)
    if every == 1:
        np.testing.assert_allclose(got[0][0], 0.9 * MOVES[0], rtol=1e-6)  # the first share is a tenth


@pytest.mark.parametrize("kind", ["ema", "lookahead"])
def test_a_ramp_grows_with_the_share_of_the_run(kind):
    update = make_averaging(kind, decay=0.95**5, every=5, ramp=3.0, total_steps=STEPS)
    assert_close(averaged(update), by_hand(kind, lambda step: 0.95**5 * (step / STEPS) ** 3, 5))


@pytest.mark.parametrize("every", [1, 2, 5])
def test_lookahead_puts_the_average_back(every):
    update = make_averaging("lookahead", decay=0.6, every=every, total_steps=STEPS)
    got = averaged(update)
    assert_close(got, by_hand("lookahead", lambda step: 0.6, every))
    apart = [step for step, (average, network) in enumerate(got, 1) if not np.array_equal(average, network)]
    assert apart == [step for step in range(1, STEPS) if step % every]


def test_the_last_step_sets_the_network_to_the_average_as_it_is():
    before, after = averaged(make_averaging("lookahead", decay=0.6, every=5, total_steps=STEPS))[-2:]
    np.testing.assert_array_equal(after[0], before[0])  # not due: not updated
    np.testing.assert_array_equal(after[1], before[0])
    longer = averaged(make_averaging("lookahead", decay=0.6, every=5, total_steps=STEPS + 1))[-1]
    assert not np.array_equal(longer[1], longer[0])


def test_no_averaging_is_none():
    assert make_averaging("none") is None


@pytest.mark.parametrize("kind", ["ema", "lookahead"])
def test_whole_numbers_and_random_keys_are_those_of_the_network(kind):
    update = make_averaging(kind, decay=0.5, total_steps=9)
    average = {"count": jnp.uint32(3), "key": jax.random.key(0), "mean": jnp.zeros(2, jnp.bfloat16)}
    network = {"count": jnp.uint32(8), "key": jax.random.key(1), "mean": jnp.ones(2, jnp.bfloat16)}
    average, after = jax.jit(update)(average, network, jnp.int32(1))
    for tree in (average, after):
        assert int(tree["count"]) == 8 and tree["count"].dtype == jnp.uint32
        assert jax.random.key_data(tree["key"]).tolist() == jax.random.key_data(jax.random.key(1)).tolist()
        assert tree["mean"].dtype == jnp.bfloat16
    assert 0 < float(average["mean"][0]) < 1


@pytest.mark.parametrize("kind", ["ema", "lookahead"])
def test_inside_a_loop_of_one_program_it_is_the_same(kind):
    update, moves = make_averaging(kind, decay=0.7, every=2, ramp=1.0, total_steps=STEPS), jnp.float32(MOVES)

    def body(i, carry):
        average, network = carry
        return update(average, network + moves[i], i + 1)

    got = jax.jit(lambda: jax.lax.fori_loop(0, STEPS, body, (jnp.zeros(4), jnp.zeros(4))))()
    assert_close([got], averaged(update)[-1:])


@pytest.fixture(scope="module")
def batch(split):
    data = split(16)
    return {"image": jnp.asarray(data.images), "label": jnp.asarray(data.labels)}


def test_a_training_step_keeps_the_average_and_evaluation_sees_it(network, batch, differences):
    tx = optax.sgd(0.1)
    plain = make_train_step(tx)
    step = make_train_step(tx, averaging=make_averaging("ema", decay=0.9, total_steps=3))
    state, bare = TrainState.create(network(), tx, average=True), TrainState.create(network(), tx)
    expected = jax.tree.map(np.array, bare.params)
    for n in range(3):
        state, _ = step(state, batch)
        bare, _ = plain(bare, batch)
        a = (1 + n) / (10 + n)
        expected = jax.tree.map(lambda old, new, a=a: a * old + (1 - a) * np.asarray(new), expected, bare.params)
    assert differences(state.params, bare.params) == []  # the average looks on
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.average[0], expected)
    moved = np.abs(np.asarray(state.average[1]["norm"]["mean"]) - np.asarray(state.extra["norm"]["mean"]))
    assert moved.max() > 1e-4  # the statistics are averaged too
    inside = state.structure.merge(*state.average, train=False)
    assert differences(nnx.state(state.model), nnx.state(inside)) == []
    apart = make_eval_step()(bare, batch)
    assert float(make_eval_step()(state, batch).loss_sum) != float(apart.loss_sum)


def test_lookahead_in_a_training_step_goes_on_from_the_average(network, batch, differences):
    tx = optax.sgd(0.1)
    step = make_train_step(tx, averaging=make_averaging("lookahead", decay=0.5, every=2, total_steps=9))
    state = TrainState.create(network(), tx, average=True)
    start = jax.tree.map(jnp.copy, state.average)
    state, _ = step(state, batch)
    assert differences(state.average[0], start[0]) == [] and differences(state.params, start[0]) != []
    state, _ = step(state, batch)
    assert differences(state.average, (state.params, state.extra)) == []
    assert differences(state.params, start[0]) != []


def test_averaging_without_room_for_it_is_an_error(network, batch):
    tx = optax.sgd(0.1)
    step = make_train_step(tx, averaging=make_averaging("ema"))
    with pytest.raises(ValueError, match="Expected a state with room for the average; do create it with average=True"):
        step(TrainState.create(network(), tx), batch)


@pytest.mark.parametrize("kind", ["none", "ema"])
def test_the_best_network_of_a_run_is_the_average(network, split, recipe, differences, kind):
    trainer = Trainer(recipe(average=kind, epochs=1), split(24), split(30, seed=1), "test")
    outcome = trainer.run(network())
    last = outcome.last
    trained = last.structure.merge(last.params, last.extra, train=False)
    assert (differences(nnx.state(outcome.best), nnx.state(trained)) == []) == (kind == "none")
    assert differences(nnx.state(outcome.best), nnx.state(last.model)) == []
    logits = outcome.best(jnp.float32(split(30, seed=1).images) / 255)
    right = jnp.argmax(logits, axis=-1) == split(30, seed=1).labels
    assert float(right.mean()) == pytest.approx(outcome.position.history[0]["accuracy"])
