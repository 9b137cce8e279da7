"""The one training step and the one evaluation step, against NumPy and a gradient taken by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnlab.data import on_images
from cnnlab.training import Metrics, TrainState, cross_entropy, make_eval_step, make_train_step
from cnnlab.training.inference import infer

TX = optax.sgd(1.0, momentum=0.9)
TRACES = []


class Counted(nnx.Module):
    """A network that notes each time it is traced."""

    def __init__(self, network: nnx.Module):
        self.network = network

    def __call__(self, images):
        TRACES.append(images.shape)
        return self.network(images)


class Softmax(nnx.Module):
    """Softmax regression, whose gradient is known: x (p - y) / n."""

    def __init__(self, rngs: nnx.Rngs):
        self.linear = nnx.Linear(16, 3, rngs=rngs)

    def __call__(self, images):
        return self.linear(images.reshape(images.shape[0], -1))


@pytest.fixture(scope="module")
def batch(split):
    data = split(16)
    return {"image": jnp.asarray(data.images), "label": jnp.asarray(data.labels)}


@pytest.fixture(scope="module")
def step():
    return make_train_step(TX)


@pytest.fixture(scope="module")
def noisy_step():
    return make_train_step(TX, augment=on_images(noisy))


@pytest.fixture(scope="module")
def evaluate():
    return make_eval_step()


def noisy(images, key):
    return images + jax.random.normal(key, images.shape)


def with_rate(state: TrainState, rate: float) -> TrainState:
    return dataclasses.replace(state, learning_rate_scale=jnp.float32(rate))


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_twenty_steps_on_one_batch_decrease_the_loss(network, batch, step):
    state, losses = with_rate(TrainState.create(network(), TX), 0.05), []
    for _ in range(20):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.6 * losses[0]
    assert int(state.step) == 20


def test_five_steps_equal_softmax_regression_with_momentum_in_numpy(batch, step):
    """rtol 1e-4 between float32 and float64 after five steps; a rate cut in the middle."""
    model = Softmax(nnx.Rngs(0))
    kernel, bias = (np.asarray(v, np.float64) for v in (model.linear.kernel[...], model.linear.bias[...]))
    x = np.asarray(batch["image"], np.float64).reshape(16, -1) / 255
    y = np.eye(3)[np.asarray(batch["label"])]
    v_kernel, v_bias = 0.0, 0.0
    state = TrainState.create(model, TX)
    for rate in (0.5, 0.5, 0.5, 0.05, 0.05):
        p = softmax(x @ kernel + bias)
        expected = (-np.log((p * y).sum(1)).sum(), (p.argmax(1) == y.argmax(1)).sum(), 16)
        v_kernel, v_bias = 0.9 * v_kernel + x.T @ (p - y) / 16, 0.9 * v_bias + (p - y).mean(axis=0)
        kernel, bias = kernel - rate * v_kernel, bias - rate * v_bias
        state, metrics = step(with_rate(state, rate), batch)
        np.testing.assert_allclose(np.array(metrics), expected, rtol=1e-5)
        np.testing.assert_allclose(state.params["linear"]["kernel"], kernel, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(state.params["linear"]["bias"], bias, rtol=1e-4, atol=1e-6)


def test_a_step_equals_the_gradient_of_the_network_in_training_mode_taken_by_hand(network, batch, step):
    """Batch statistics and dropout included; rtol 1e-5 between two float32 programs."""
    state = with_rate(TrainState.create(network(), TX, seed=3), 0.1)
    model = nnx.clone(state.structure.merge(state.params, state.extra, train=True))
    images = np.asarray(batch["image"], np.float32) / np.float32(255)

    def mean_loss(model):
        logits = jax.nn.log_softmax(model(images))
        return -logits[jnp.arange(16), batch["label"]].mean()

    before = nnx.to_pure_dict(nnx.state(model, nnx.Param))
    loss, gradient = nnx.value_and_grad(mean_loss)(model)
    by_hand = jax.tree.map(lambda w, g: w - 0.1 * g, before, nnx.to_pure_dict(gradient))
    after, metrics = step(state, batch)
    np.testing.assert_allclose(float(metrics.loss), float(loss), rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), after.params, by_hand)
    np.testing.assert_allclose(after.extra["norm"]["mean"], model.norm.mean[...], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.extra["norm"]["var"], model.norm.var[...], rtol=1e-5, atol=1e-6)


def test_metrics_are_sums_so_that_batches_of_any_size_add_up(batch, network, evaluate):
    state = TrainState.create(network(), TX)
    parts = [{k: v[cut] for k, v in batch.items()} for cut in (slice(0, 5), slice(5, 16))]
    total = sum((evaluate(state, part) for part in parts), Metrics.zero())
    logits = np.asarray(state.model(np.asarray(batch["image"], np.float32) / 255), np.float64)
    labels = np.asarray(batch["label"])
    loss = -np.log(softmax(logits)[np.arange(16), labels])
    assert (int(total.correct), int(total.count)) == ((logits.argmax(1) == labels).sum(), 16)
    np.testing.assert_allclose(float(total.loss_sum), loss.sum(), rtol=1e-5)
    np.testing.assert_allclose(float(total.loss), loss.mean(), rtol=1e-5)
    np.testing.assert_allclose(float(total.accuracy), (logits.argmax(1) == labels).mean(), rtol=1e-6)
    assert [v.dtype for v in total] == [jnp.float32, jnp.int32, jnp.int32]


def test_the_augmentation_gets_images_in_0_1_and_the_key_of_seed_and_step(batch, step, noisy_step):
    state = TrainState.create(Softmax(nnx.Rngs(0)), TX, seed=2**32 - 1)
    other = TrainState.create(Softmax(nnx.Rngs(0)), TX, seed=2**32 - 1)
    images = np.asarray(batch["image"], np.float32) / np.float32(255)
    for number in range(3):
        key = jax.random.fold_in(jax.random.key(np.uint32(2**32 - 1)), number)
        state, _ = noisy_step(state, batch)
        other, _ = step(other, {"image": noisy(images, key), "label": batch["label"]})
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.params, other.params)
    assert int(state.seed) == 2**32 - 1


def test_the_same_seed_gives_the_same_numbers_and_another_seed_or_step_others(batch, noisy_step, differences):
    def after(seed, number=0):
        state = TrainState.create(Softmax(nnx.Rngs(0)), TX, seed=seed)
        return noisy_step(dataclasses.replace(state, step=jnp.int32(number)), batch)[0].params

    assert differences(after(1), after(1)) == []
    assert len(differences(after(1), after(2))) == 2
    assert len(differences(after(1), after(1, number=1))) == 2


def test_the_seed_decides_about_dropout_too(network, batch, step, differences):
    def after(seed):
        return step(TrainState.create(network(), TX, seed=seed), batch)[0].params

    assert differences(after(5), after(5)) == []
    assert "['head']['kernel']" in differences(after(5), after(6))


def test_random_keys_of_any_shape_get_the_seed(differences):
    class Keys(nnx.Module):
        def __init__(self):
            self.keys = nnx.Variable(jax.random.split(jax.random.key(0), (2, 3)))

    one, two = (TrainState.create(Keys(), TX, seed=seed).extra["keys"] for seed in (1, 2))
    assert one.shape == (2, 3)
    data = [jax.random.key_data(key) for keys in (one, two) for key in keys.reshape(-1)]
    assert len({tuple(np.asarray(d).tolist()) for d in data}) == 12


def test_batch_statistics_and_dropout_keys_live_in_the_state_and_advance(network, batch, step):
    state = TrainState.create(network(), TX)
    counts, means = [], []
    for _ in range(3):
        counts.append(int(state.extra["dropout"]["rngs"]["count"]))
        means.append(np.asarray(state.extra["norm"]["mean"]))
        state, _ = step(state, batch)
    assert counts == [0, 1, 2]
    assert not np.array_equal(means[0], means[1]) and not np.array_equal(means[1], means[2])


def test_a_second_call_another_seed_and_another_network_built_alike_compile_nothing(network, batch):
    step, evaluate = make_train_step(TX), make_eval_step()
    TRACES.clear()
    for model_seed, seed in ((0, 0), (0, 1), (7, 1)):
        state = TrainState.create(Counted(network(model_seed)), TX, seed=seed)
        for _ in range(2):
            state, _ = step(state, batch)
            evaluate(state, batch)
    assert len(TRACES) == 2  # one training and one evaluation program
    step(TrainState.create(Counted(network(width=9)), TX), batch)
    assert len(TRACES) == 3  # negative control


def test_structures_are_equal_exactly_when_the_networks_are_built_alike(network):
    def structure(**options):
        return TrainState.create(network(**options), TX).structure

    one, same = structure(), structure(seed=5)
    assert one == same and hash(one) == hash(same) and one == one
    for other in (structure(width=9), structure(dropout=0.5), "text"):
        assert one != other


def test_a_state_is_plain_arrays_and_nothing_else(network):
    state = TrainState.create(network(), TX)
    leaves = jax.tree.leaves(state)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, (nnx.Module, nnx.State, nnx.Variable)))
    assert [type(node) for node in nodes] == [type(leaf) for leaf in leaves]  # none of them holds such a node


@pytest.mark.parametrize("images", [1, 4, 7, 8])
def test_logits_of_any_number_of_images_are_those_of_the_network_also_where_a_batch_is_padded(network, split, images):
    state, pixels = TrainState.create(network(), TX), jnp.asarray(split(images).images)
    found = infer(state.structure, *state.evaluated, pixels, batch_size=4)
    expected = state.model(pixels / jnp.float32(255))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert found.shape == (images, 3)


def test_creating_a_state_copies_the_arrays_and_leaves_the_network_in_its_mode(network, batch, step):
    model = network()
    model.eval()
    before = np.asarray(model.head.kernel[...])
    state, _ = step(with_rate(TrainState.create(model, TX), 0.1), batch)
    assert model.norm.use_running_average and model.dropout.deterministic
    np.testing.assert_array_equal(model.head.kernel[...], before)  # neither changed nor donated
    assert not np.array_equal(state.params["head"]["kernel"], before)


def test_the_model_of_a_state_is_in_evaluation_mode_and_computes_what_the_eval_step_sees(network, batch, evaluate):
    state = TrainState.create(network(), TX)
    model = state.model
    assert model.norm.use_running_average and model.dropout.deterministic
    training = state.structure.merge(state.params, state.extra, train=True)
    assert not training.norm.use_running_average and not training.dropout.deterministic
    loss = cross_entropy(model(batch["image"] / 255.0), batch["label"]).sum()
    np.testing.assert_allclose(float(evaluate(state, batch).loss_sum), float(loss), rtol=1e-5)


def test_padding_under_the_mask_counts_nothing_even_where_it_is_not_finite(network, batch, evaluate):
    state = TrainState.create(network(), TX)
    images = np.asarray(batch["image"], np.float32) / 255
    expected = evaluate(state, {"image": images[:11], "label": batch["label"][:11]})
    images[11:] = np.nan
    mask = np.arange(16) < 11
    got = evaluate(state, {"image": images, "label": batch["label"], "mask": mask})
    assert (int(got.correct), int(got.count)) == (int(expected.correct), 11)
    np.testing.assert_allclose(float(got.loss_sum), float(expected.loss_sum), rtol=1e-6)
    assert np.isnan(float(evaluate(state, {"image": images, "label": batch["label"]}).loss_sum))


def test_evaluation_changes_nothing_and_repeats_itself(network, batch, evaluate, differences):
    state = TrainState.create(network(), TX)
    before = jax.tree.map(jnp.copy, state)
    first, second = evaluate(state, batch), evaluate(state, batch)
    assert differences(first, second) == []
    assert differences(state, before) == []


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_with_and_without_label_smoothing_equals_numpy(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(20, 5)) * 4, rng.integers(0, 5, 20)
    targets = (1 - smoothing) * np.eye(5)[labels] + smoothing / 5
    expected = -(targets * np.log(softmax(logits))).sum(axis=1)
    got = cross_entropy(jnp.float32(logits), jnp.asarray(labels), label_smoothing=smoothing)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert got.dtype == jnp.float32 and got.shape == (20,)
    half = cross_entropy(jnp.bfloat16(logits), jnp.asarray(labels), label_smoothing=smoothing)
    assert half.dtype == jnp.float32


def test_the_loss_that_is_given_is_the_one_that_is_minimised_and_reported(batch):
    state = with_rate(TrainState.create(Softmax(nnx.Rngs(0)), TX), 0.1)
    before = jax.tree.map(np.array, state.params)
    after, metrics = make_train_step(TX, loss=lambda logits, labels: 7.0 + 0.0 * logits.sum(axis=1))(state, batch)
    assert float(metrics.loss_sum) == 7.0 * 16
    jax.tree.map(np.testing.assert_array_equal, after.params, before)


def test_a_state_that_was_stepped_cannot_be_used_again(batch, step, network):
    state = TrainState.create(network(), TX)
    step(state, batch)
    with pytest.raises((RuntimeError, ValueError), match="deleted"):
        step(state, batch)


def test_the_plain_function_is_pure_and_can_be_part_of_a_larger_program(network, batch, differences):
    step = make_train_step(TX, jit=False)
    state = TrainState.create(network(), TX)
    twice = jax.jit(lambda state: step(step(state, batch)[0], batch))
    one, two = twice(state), twice(state)
    assert differences(one, two) == []
    assert int(one[0].step) == 2 and int(state.step) == 0


def test_uint8_images_are_the_same_as_floats_in_0_1(network, batch, evaluate, differences):
    state = TrainState.create(network(), TX)
    floats = {"image": batch["image"].astype(jnp.float32) / 255.0, "label": batch["label"]}
    assert differences(evaluate(state, batch), evaluate(state, floats)) == []
