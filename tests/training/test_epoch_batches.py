"""A program of many steps against single ones: what each of them hears, and a network of blocks and pooling."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnlab.data import Split, build_augmentation
from cnnlab.models import create_model
from cnnlab.training import Metrics, TrainState, make_train_step
from cnnlab.training.epoch import Epoch, epoch_order, put_on_device
from cnnlab.training.many_seeds import lane_of, stack
from tests.training.linear import Linear

BATCH, IMAGES, STEPS, SEEDS = 8, 19, 3, (5, 6)
TX = optax.sgd(0.1, momentum=0.9)
TOLERANCE = dict(rtol=1e-5, atol=1e-6)  # two float32 programs of the same steps


@pytest.fixture(scope="module")
def data(split):
    return put_on_device(split(IMAGES))


@pytest.fixture(scope="module")
def flipping():
    """A step with alternating flips, the one augmentation that wants to know places and epoch."""
    return make_train_step(TX, augment=build_augmentation(flip="alternating"), jit=False)


def in_programs(step, state, data, orders, epochs=2):
    """State and sums after some epochs of `Epoch`."""
    epoch, totals = Epoch(step, BATCH), Metrics.zero()
    seeds = state.step.shape
    totals = stack([totals] * seeds[0]) if seeds else totals
    epoch.compile(state, data, orders[0])
    for order in orders[:epochs]:
        state, totals = epoch.run(state, totals, data, order, 0, -(-len(data) // BATCH))
    return state, totals


def one_by_one(step, state, data, orders, place=lambda index: index, count=lambda epoch: epoch):
    """The same by single steps; `place` and `count` are what they hear of places and epoch."""
    step, totals = jax.jit(step), Metrics.zero()
    for epoch, order in enumerate(orders):
        order = np.arange(len(data), dtype=np.int32) if order is None else np.asarray(order)
        for start in range(0, len(data), BATCH):
            index = order[start : start + BATCH]
            batch = {"image": data.images[index], "label": data.labels[index]}
            state, metrics = step(state, {**batch, "index": place(index), "epoch": jnp.int32(count(epoch))})
            totals = totals + metrics
    return state, totals


def off(got, expected) -> bool:
    """Whether parameters or sums differ by more than the tolerance."""
    pairs = zip(*(jax.tree.leaves((state.params, totals)) for state, totals in (got, expected)), strict=True)
    return not all(np.allclose(a, b, **TOLERANCE) for a, b in pairs)


@pytest.mark.parametrize("kind", ["shuffled", "dataset"])
def test_each_step_hears_the_places_of_its_images_and_the_epoch(data, flipping, kind):
    orders = [epoch_order(kind, 3, epoch, IMAGES) for epoch in (1, 2)]
    state = TrainState.create(Linear(), TX, seed=5)
    expected = one_by_one(flipping, state, data, orders)
    for wrong in ({"place": lambda index: 0 * index}, {"count": lambda epoch: 0}):  # negative control
        assert off(one_by_one(flipping, state, data, orders, **wrong), expected)
    assert not off(in_programs(flipping, state, data, orders), expected)


def test_of_several_seeds_each_hears_its_own_places(data, flipping):
    orders = [stack([epoch_order("shuffled", seed, epoch, IMAGES) for seed in SEEDS]) for epoch in (1, 2)]
    states = [TrainState.create(Linear(seed), TX, seed=seed) for seed in SEEDS]
    found, totals = in_programs(flipping, stack(states), data, orders)
    for lane, state in enumerate(states):
        own = lane_of(found, lane), jax.tree.map(lambda sums, lane=lane: sums[lane], totals)
        assert not off(own, one_by_one(flipping, state, data, [order[lane] for order in orders]))
        assert off(own, one_by_one(flipping, state, data, [order[1 - lane] for order in orders]))


@pytest.mark.slow
def test_a_network_of_blocks_and_pooling_gives_the_numbers_of_single_steps():
    """LeNet: on CPU its convolutions are products over blocks, and their maxima are taken inside the program's loop."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    data = put_on_device(Split(images, rng.integers(0, 10, 20).astype(np.int32)))
    step = make_train_step(TX, augment=build_augmentation(noise=0.1), jit=False)
    state = TrainState.create(create_model("lenet", hidden=(16,)), TX, seed=5)
    orders = [epoch_order("shuffled", 3, 1, 20)]
    expected = one_by_one(step, state, data, orders)
    assert off((state, Metrics.zero()), expected)  # negative control: it trains
    assert not off(in_programs(step, state, data, orders), expected)
