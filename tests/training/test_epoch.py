"""An epoch in one dispatch equals its steps one by one; the orders of the images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnlab.data import Split
from cnnlab.data.augmentation import build_augmentation
from cnnlab.layers import Conv
from cnnlab.layers.dense_convolution import dense_conv
from cnnlab.models import create_model
from cnnlab.training import Metrics, TrainState, make_train_step
from cnnlab.training.epoch import Epoch, _steps_a_call, epoch_order, fast_in_loops, put_on_device, steps_per_epoch
from tests.training.convolutional import Convolutional

BATCH = 8
IMAGES = 2 * BATCH + 3
TX = optax.sgd(0.1, momentum=0.9)
AUGMENT = build_augmentation(noise=0.1)
STEP = make_train_step(TX, augment=AUGMENT)


@pytest.fixture(scope="module")
def data(split):
    return put_on_device(split(IMAGES))


@pytest.fixture(scope="module")
def epoch(data, network):
    """A compiled epoch; `epoch.traces` grows with every trace of the step."""
    return compiled(network(), data, order=jnp.arange(IMAGES))


def compiled(model, data, order, **options) -> Epoch:
    step, traces = make_train_step(TX, augment=AUGMENT, jit=False), []

    def noted(state, batch):
        traces.append(batch["label"].shape[0])
        return step(state, batch)

    epoch = Epoch(noted, BATCH, **options)
    epoch.traces = traces
    assert epoch.compile(TrainState.create(model, TX), data, order) > 0
    return epoch


def one_by_one(state, data, chosen):
    """The documented step over the same batches, one call each."""
    total = Metrics.zero()
    for batch in chosen:
        state, metrics = STEP(state, {"image": data.images[batch], "label": data.labels[batch]})
        total = total + metrics
    return state, total


def batches(order, keep=True) -> list[np.ndarray]:
    cut = [np.asarray(order)[i : i + BATCH] for i in range(0, len(order), BATCH)]
    return [batch for batch in cut if keep or len(batch) == BATCH]


def assert_close(got, expected):
    """rtol 1e-5, atol 1e-6: two float32 programs of the same steps; whole numbers and keys exactly."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        if jnp.issubdtype(a.dtype, jnp.floating):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
        else:
            assert (a == b).all()


def test_an_epoch_equals_its_steps_one_by_one(epoch, data, network):
    order = epoch_order("shuffled", 3, 1, IMAGES)
    got = epoch.run(TrainState.create(network(), TX), Metrics.zero(), data, order, 0, 3)
    expected = one_by_one(TrainState.create(network(), TX), data, batches(order))
    assert_close(got, expected)
    assert (int(got[0].step), int(got[1].count)) == (3, IMAGES)


def test_without_an_order_the_batches_are_cut_in_the_order_of_the_data(data, network):
    epoch = compiled(network(), data, order=None)
    got = epoch.run(TrainState.create(network(), TX), Metrics.zero(), data, None, 0, 3)
    expected = one_by_one(TrainState.create(network(), TX), data, batches(np.arange(IMAGES)))
    assert_close(got, expected)


@pytest.mark.parametrize("conv", [nnx.Conv, Conv])
def test_a_network_of_either_kind_of_convolution_gives_the_same_numbers_step_by_step(data, conv):
    model = Convolutional(nnx.Rngs(0), conv)
    order = epoch_order("shuffled", 3, 1, IMAGES)
    epoch = compiled(model, data, order)
    assert "convolution" in epoch.programs[0].as_text()
    on_cpu = {nnx.Conv: 1, Conv: None}  # steps of a call: one where loops are slow, else any number
    assert jax.default_backend() != "cpu" or epoch._compiled[(), BATCH, False].steps == on_cpu[conv]
    got = epoch.run(TrainState.create(model, TX), Metrics.zero(), data, order, 0, 3)
    assert_close(got, one_by_one(TrainState.create(model, TX), data, batches(order)))


KNOWN_TURNS = '"known_trip_count":{"n":"%d"}'


@pytest.fixture(scope="module")
def threes(split, network):
    """Six whole batches and a rest, and their epoch of three steps a call."""
    data = put_on_device(split(6 * BATCH + 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnnlab.training.epoch._steps_a_call", lambda full: 3)
        return data, compiled(network(), data, jnp.arange(len(data)))


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (1, 7), (2, 5), (3, 4), (6, 7)])
def test_calls_of_a_fixed_number_of_steps_train_as_the_steps_one_by_one(threes, network, start, stop):
    """Also from where a run stopped that counted otherwise."""
    data, epoch = threes
    order = epoch_order("shuffled", 3, 1, len(data))
    assert KNOWN_TURNS % 3 in epoch.programs[0].as_text()
    got = epoch.run(TrainState.create(network(), TX), Metrics.zero(), data, order, start, stop)
    assert_close(got, one_by_one(TrainState.create(network(), TX), data, batches(order)[start:stop]))
    assert int(got[0].step) == stop - start


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="elsewhere there is no such loop")
def test_a_loop_over_any_number_of_steps_is_none_whose_turns_the_compiler_knows(epoch):
    assert epoch._compiled[(), BATCH, False].steps is None
    assert "while" in epoch.programs[0].as_text() and KNOWN_TURNS % 2 not in epoch.programs[0].as_text()


def test_a_program_of_one_step_is_compiled_before_it_is_needed(split, network, monkeypatch):
    monkeypatch.setattr("cnnlab.training.epoch._steps_a_call", lambda full: 2)
    state, many = TrainState.create(network(), TX), put_on_device(split(5 * BATCH))
    counts = {}
    for images, start in ((4 * BATCH, 0), (4 * BATCH, 1), (5 * BATCH, 0)):  # none left over, a start between, one left
        data, epoch = many.take(slice(0, images)), Epoch(make_train_step(TX, jit=False), BATCH)
        epoch.compile(state, data, None, start)
        counts[images, start] = len(epoch.programs)
    assert [*counts.values()] == [1, 2, 2]


@pytest.mark.parametrize(
    ("platform", "full", "steps"),
    [("cpu", 390, None), ("gpu", 390, 39), ("gpu", 1562, 71), ("gpu", 97, 97), ("gpu", 12, 12), ("tpu", 64, 32)]
    + [("gpu", 937, 36), ("gpu", 2083, 32)],  # primes: one and three steps are left over
)
def test_how_many_steps_a_call_runs_depends_on_the_platform(platform, full, steps, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert _steps_a_call(full) == steps


@pytest.mark.parametrize(
    ("start", "count", "stop"),
    [(0, 1, 3), (0, 3, 3), (3, 1, 6), (0, 4, 6), (1, 1, 3), (0, 100, 7), (6, 1, 7), (0, 5, 6), (3, 4, 7)],
)
def test_a_run_stops_after_whole_calls_or_at_the_end(threes, start, count, stop):
    assert threes[1].stop_after(start, count) == stop


IMAGE, KERNEL = (2, 8, 8, 4), (3, 3, 4, 6)


def convolved(images, kernel, **options):
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=numbers, **options)


@pytest.mark.parametrize(
    ("function", "shapes", "fast"),
    [
        (convolved, (IMAGE, KERNEL), True),
        (
            lambda x, w: jax.grad(lambda x: convolved(x, w).sum())(x),
            (IMAGE, KERNEL),
            False,
        ),  # in and out of the kernel swapped
        (lambda x, w: jax.grad(lambda w: convolved(x, w).sum())(w), (IMAGE, KERNEL), False),
        (partial(convolved, feature_group_count=2), (IMAGE, (3, 3, 2, 6)), False),
        (partial(convolved, batch_group_count=2), (IMAGE, KERNEL), False),
        (lambda x, w: convolved(x, w) + convolved(x, w[:, :, :2], feature_group_count=2), (IMAGE, KERNEL), False),
        (lambda x, w: jax.grad(lambda p: dense_conv(*p).sum())((x, w)), (IMAGE, KERNEL), True),
        (lambda x, w: jnp.dot(x, w), ((4, 4), (4, 4)), True),  # nothing to be slow
    ],
    ids=["forward", "of inputs", "of kernel", "groups", "groups of images", "one of two", "cnnlab", "none"],
)
def test_a_program_is_fast_in_loops_when_all_its_convolutions_have_the_form_of_fast_kernels(function, shapes, fast):
    traced = jax.jit(function).trace(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes))
    assert fast_in_loops(traced.lower(lowering_platforms=("cpu",)).as_text()) == fast


def test_a_kernel_that_xla_is_to_turn_is_not_fast_in_loops():
    """JAX turns it before; other programs may leave that to the convolution."""
    traced = jax.jit(convolved).trace(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (IMAGE, KERNEL)))
    program = traced.lower(lowering_platforms=("cpu",)).as_text()
    turned = program.replace("reverse = [false, false]", "reverse = [true, true]")
    assert turned != program and fast_in_loops(program) and not fast_in_loops(turned)


@pytest.mark.parametrize("name", ["resnet20", "convnet4"])
def test_a_network_of_cnnlab_is_fast_in_loops_on_cpu(name):
    state = TrainState.create(create_model(name), TX)
    batch = {"image": jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.uint8), "label": jax.ShapeDtypeStruct((4,), jnp.int32)}
    traced = jax.jit(make_train_step(TX, jit=False)).trace(state, batch)
    program = traced.lower(lowering_platforms=("cpu",)).as_text()
    assert program.count("stablehlo.convolution") > 2 and fast_in_loops(program)


def test_the_images_that_are_counted_are_those_of_the_batches(epoch, data, network):
    """The short last batch has three images of its own, not padding: other numbers there, other weights."""
    order = jnp.arange(IMAGES)
    state, total = epoch.run(TrainState.create(network(), TX), Metrics.zero(), data, order, 2, 3)
    assert (int(total.count), int(state.step)) == (3, 1)
    changed = np.array(data.images)
    changed[-1] = 255 - changed[-1]
    other = put_on_device(Split(changed, np.array(data.labels)))
    last, _ = epoch.run(TrainState.create(network(), TX), Metrics.zero(), other, order, 2, 3)
    assert not np.array_equal(state.params["head"]["kernel"], last.params["head"]["kernel"])


def test_the_images_stay_bytes_on_the_device(data, network):
    epoch = Epoch(make_train_step(TX, jit=False), BATCH)
    epoch.compile(TrainState.create(network(), TX), data, None)
    assert data.images.dtype == jnp.uint8 and f"u8[{IMAGES},4,4,1]" in epoch.programs[0].as_text()


def test_dropping_the_last_batch_leaves_its_images_out(data, network):
    order = epoch_order("shuffled", 3, 1, IMAGES)
    epoch = compiled(network(), data, order, keep_last=False)
    assert set(epoch.traces) == {BATCH}
    steps = steps_per_epoch(IMAGES, BATCH, keep_last=False)
    got = epoch.run(TrainState.create(network(), TX), Metrics.zero(), data, order, 0, steps)
    assert_close(got, one_by_one(TrainState.create(network(), TX), data, batches(order, keep=False)))
    assert int(got[1].count) == 2 * BATCH


@pytest.mark.parametrize("cuts", [[0, 3], [0, 1, 3], [0, 2, 3], [0, 1, 2, 3], [0, 0, 1, 1, 3, 3]])
def test_where_an_epoch_is_cut_into_chunks_changes_no_bit(epoch, data, network, differences, cuts):
    order = epoch_order("shuffled", 5, 2, IMAGES)

    def run(cuts):
        state, total = TrainState.create(network(), TX), Metrics.zero()
        for start, stop in zip(cuts, cuts[1:], strict=False):
            state, total = epoch.run(state, total, data, order, start, stop)
        return state, total

    assert differences(run(cuts), run([0, 3])) == []
    assert differences(run([0, 2]), run([0, 3])) != []  # negative control


def test_nothing_is_traced_again_in_later_epochs_nor_for_another_seed_or_network(epoch, data, network):
    before = len(epoch.traces)
    assert set(epoch.traces) == {BATCH, IMAGES % BATCH}
    for seed in (1, 2):
        state = TrainState.create(network(seed), TX, seed=seed)
        assert epoch.compile(state, data, jnp.arange(IMAGES)) == 0.0
        for number in (1, 2):
            order = epoch_order("shuffled", seed, number, IMAGES)
            state, _ = epoch.run(state, Metrics.zero(), data, order, 0, 3)
    assert len(epoch.traces) == before


def test_the_state_that_goes_in_is_donated(epoch, data, network):
    state = TrainState.create(network(), TX)
    epoch.run(state, Metrics.zero(), data, jnp.arange(IMAGES), 0, 1)
    assert state.params["head"]["kernel"].is_deleted()


@pytest.mark.parametrize(("images", "size"), [(3, 8), (8, 8), (9, 8), (8, 1)])
def test_any_number_of_images_is_counted_once(network, split, images, size):
    data = put_on_device(split(images))
    epoch = Epoch(make_train_step(TX, jit=False), size)
    state = TrainState.create(network(dropout=0.0), TX)
    epoch.compile(state, data, None)
    steps = steps_per_epoch(images, size, keep_last=True)
    state, total = epoch.run(state, Metrics.zero(), data, None, 0, steps)
    assert (int(state.step), int(total.count)) == (steps, images) == (-(-images // size), images)


@pytest.mark.parametrize(
    ("images", "keep", "steps"),
    [(50_000, True, 1563), (50_000, False, 1562), (64, True, 2), (64, False, 2), (31, True, 1), (31, False, 0)],
)
def test_steps_per_epoch(images, keep, steps):
    assert steps_per_epoch(images, 32, keep_last=keep) == steps


def test_the_order_of_the_data_set_is_no_permutation_at_all():
    assert epoch_order("dataset", 0, 1, 100) is None


def test_permuted_is_one_permutation_for_all_epochs_and_another_for_another_seed():
    first, second, other = (np.asarray(epoch_order("permuted", s, e, 100)) for s, e in ((0, 1), (0, 7), (1, 1)))
    np.testing.assert_array_equal(first, second)
    assert sorted(first) == list(range(100)) and not np.array_equal(first, np.arange(100))
    assert not np.array_equal(first, other)


def test_shuffled_is_a_permutation_of_its_own_for_every_seed_and_epoch():
    orders = [np.asarray(epoch_order("shuffled", s, e, 100)) for s in (0, 1) for e in (1, 2, 3)]
    orders.append(np.asarray(epoch_order("permuted", 0, 1, 100)))
    assert len({tuple(order.tolist()) for order in orders}) == 7
    for order in orders:
        assert sorted(order) == list(range(100)) and order.dtype == np.int32
    np.testing.assert_array_equal(orders[0], epoch_order("shuffled", 0, 1, 100))
