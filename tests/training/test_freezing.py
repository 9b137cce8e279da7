"""What is frozen stays bit for bit and costs the optimiser nothing; groups learn at their own rate."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from cnnlab.layers import Standardized
from cnnlab.training import Callback, Recipe, RecipeError, RunFolder, Trainer, TrainState, make_optimizer
from cnnlab.training import make_train_step as train_step
from cnnlab.training.groups import expect_groups, matches, rate_factor
from cnnlab.training.state import Structure, split_model

FREEZE = ("first", "norm")
TX = optax.sgd(0.1, momentum=0.9)


class Deep(nnx.Module):
    """A block with dropout and batch statistics inside, and both again outside."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.block = Inner(rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, images):
        return self.head(self.dropout(self.norm(self.block(images.reshape(images.shape[0], -1)))))


class Inner(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.linear = nnx.Linear(16, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, use_bias=False, use_scale=False, rngs=rngs)
        self.dropout = nnx.Dropout(0.3, rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.dropout(self.norm(self.linear(x))))


@pytest.fixture(scope="module")
def batch(split):
    data = split(16)
    return {"image": jnp.asarray(data.images), "label": jnp.asarray(data.labels)}


def numbers(model: nnx.Module) -> dict[str, np.ndarray]:
    """Every array of a network but its random keys, by dotted path, as a copy."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngKey)))
    return {".".join(map(str, path)): np.array(value[...]) for path, value in flat}


def changed(before: nnx.Module, after: nnx.Module) -> set[str]:
    a, b = numbers(before), numbers(after)
    return {name for name in a if a[name].tobytes() != b[name].tobytes()}


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("conv1", ("conv1", "kernel"), True),
        ("conv1", ("conv10", "kernel"), False),
        ("conv1*", ("conv10", "kernel"), True),
        ("layer1.*", ("layer1", 0, "conv1", "kernel"), True),
        ("layer1.0", ("layer1", 0, "conv1", "kernel"), True),
        ("layer1.0", ("layer1", 1, "conv1", "kernel"), False),
        ("layer[12]", ("layer2", 0, "bn1", "scale"), True),
        ("*.bias", ("layer2", 0, "bn1", "bias"), True),
        ("bn1", ("layer2", 0, "bn1", "bias"), False),
        ("CONV1", ("conv1", "kernel"), False),
        ("conv1", ("network", "conv1", "kernel"), True),
        ("network.conv1", ("network", "conv1", "kernel"), True),
    ],
)
def test_a_pattern_means_parameters_by_their_path_or_by_a_module_around_them(pattern, path, expected):
    assert matches(pattern, path) is expected


def test_the_last_pattern_that_matches_gives_the_factor():
    rates = (("*", 0.1), ("head", 1.0), ("head.bias", 2.0))
    paths = [("conv1", "kernel"), ("head", "kernel"), ("head", "bias")]
    assert [rate_factor(rates, path) for path in paths] == [0.1, 1.0, 2.0]
    assert rate_factor((("head", 3.0),), ("conv1", "kernel")) == 1.0


def test_training_changes_all_but_the_frozen_arrays_and_their_statistics(network, split, recipe):
    """Weight decay, momentum and noise at work, over several epochs; without freezing every array moves."""
    changes = {"epochs": 2, "weight_decay": 0.1, "learning_rate": 0.05}
    everything = set(numbers(network()))
    frozen = {name for name in everything if name.split(".")[0] in FREEZE}
    assert frozen == {"first.kernel", "first.bias", "norm.scale", "norm.bias", "norm.mean", "norm.var"}
    for freeze, expected in (((), everything), (FREEZE, everything - frozen)):
        trainer = Trainer(recipe(**changes, freeze=freeze), split(35), split(20, seed=1), "test")
        outcome = trainer.run(network(), seed=1)
        assert changed(network(), outcome.last.model) == expected
        assert changed(network(), outcome.best) <= expected


def test_the_optimiser_keeps_nothing_for_frozen_parameters(network):
    tx = make_optimizer(Recipe(weight_decay=0.1), 5)
    whole, part = (TrainState.create(network(), tx, freeze=freeze) for freeze in ((), FREEZE))
    shapes = [sorted(leaf.shape for leaf in jax.tree.leaves(s.opt_state) if leaf.ndim) for s in (whole, part)]
    assert shapes == [[(3,), (8,), (8,), (8,), (8, 3), (16, 8)], [(3,), (8, 3)]]
    assert set(part.params) == {"head"} and {"first", "norm"} <= set(part.extra)


def test_the_gradient_of_the_rest_is_that_of_the_network_in_evaluation_mode(network, batch):
    """Everything but the head is frozen, so that the whole network but the dropout before the head evaluates."""
    model = network(dropout=0.0)
    model.norm.mean[...] += 0.5
    after, metrics = train_step(optax.sgd(1.0))(TrainState.create(model, optax.sgd(1.0), freeze=FREEZE), batch)
    model.eval()
    images = batch["image"].astype(jnp.float32) / 255
    features = nnx.relu(model.norm(model.first(images.reshape(16, -1))))

    def loss(kernel):
        logits = features @ kernel  # the bias is zero
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), batch["label"][:, None], 1).mean()

    value, gradient = jax.value_and_grad(loss)(model.head.kernel[...])
    np.testing.assert_allclose(metrics.loss, value, rtol=1e-5)
    np.testing.assert_allclose(after.params["head"]["kernel"], model.head.kernel[...] - gradient, rtol=1e-5, atol=1e-6)


def test_a_module_evaluates_when_all_its_parameters_are_frozen_and_only_then():
    model = Deep(rngs=nnx.Rngs(0))
    for freeze, expected in (
        ((), [False] * 4),
        (("block",), [True, True, False, False]),
        (("block.linear.kernel",), [False] * 4),
        (("norm.scale",), [False] * 4),
        (("block", "norm"), [True, True, True, False]),
    ):
        structure, params, extra = split_model(model, freeze)
        got = structure.merge(params, extra, train=True)
        flags = [got.block.norm.use_running_average, got.block.dropout.deterministic]
        flags += [got.norm.use_running_average, got.dropout.deterministic]
        assert flags == expected, freeze
        tested = structure.merge(params, extra, train=False)
        assert tested.norm.use_running_average and tested.dropout.deterministic
    assert not model.norm.use_running_average  # the caller's stays in its mode


def test_norms_and_dropout_without_parameters_follow_the_frozen_block_they_are_in(batch):
    before = Deep(rngs=nnx.Rngs(0))
    state = TrainState.create(before, TX, freeze=["block"])
    after, _ = train_step(TX)(state, batch)
    moved = changed(before, after.model)
    assert moved == {
        "norm.mean",
        "norm.var",
        "norm.scale",
        "norm.bias",
        "head.kernel",
        "head.bias",
        "dropout.rngs.count",
    }


@pytest.mark.parametrize("schedule", ["plateau", "constant", "cosine"])
def test_a_factor_of_a_tenth_makes_the_first_update_exactly_a_tenth(schedule):
    """Exact: the factor multiplies the finished update in float32. Weight decay is scaled with the rest."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    params, gradient = ({"first": {"kernel": draw(4, 3)}, "head": {"kernel": draw(3, 2)}} for _ in range(2))
    recipe = Recipe(schedule=schedule, weight_decay=0.1, learning_rate=0.3, nesterov=True)
    plain, scaled = (make_optimizer(r, 5) for r in (recipe, recipe.replace(learning_rates={"*": 3, "first": 0.1})))
    expected, _ = plain.update(gradient, plain.init(params), params)
    got, _ = scaled.update(gradient, scaled.init(params), params)
    np.testing.assert_array_equal(got["first"]["kernel"], expected["first"]["kernel"] * np.float32(0.1))
    np.testing.assert_array_equal(got["head"]["kernel"], expected["head"]["kernel"] * np.float32(3))
    assert np.abs(expected["first"]["kernel"]).min() > 0


def test_the_factor_acts_in_the_training_step_and_survives_a_wrapper(network, batch):
    wrapped = Standardized(network(), [0.5], [0.25])
    recipe = Recipe(schedule="constant", learning_rate=0.5, momentum=0.0, learning_rates={"head.bias": 0.1})
    moves = []
    for r in (recipe.replace(learning_rates={}), recipe):
        tx = make_optimizer(r, 5)
        state = TrainState.create(wrapped, tx)
        assert (batch["image"].shape, state.params["network"]["head"]["bias"].tolist()) == ((16, 4, 4, 1), [0, 0, 0])
        after, _ = train_step(tx)(state, batch)
        moves.append(jax.tree.map(np.array, after.params["network"]["head"]))
    np.testing.assert_array_equal(moves[1]["bias"], moves[0]["bias"] * np.float32(0.1))
    np.testing.assert_array_equal(moves[1]["kernel"], moves[0]["kernel"])


@pytest.mark.parametrize(
    ("freeze", "text"),
    [
        (["frist"], "Expected every pattern of freeze to match a parameter, got 'frist'; did you mean first?"),
        (["first", "fist.*"], "got 'fist.*'; did you mean first?"),
        (["zzz"], "got 'zzz'; the parameters lie in first, head, norm."),
        (["*"], "Expected a parameter to train, got all frozen by *; do freeze fewer."),
        (["first", "norm", "head"], "Expected a parameter to train, got all frozen by first, norm, head;"),
    ],
)
def test_patterns_that_match_nothing_or_everything_are_refused(network, freeze, text):
    with pytest.raises(RecipeError, match=re.escape(text)):
        TrainState.create(network(), TX, freeze=freeze)


@pytest.mark.parametrize(
    ("rates", "text"),
    [
        ({"*": 0.1, "haed": 2.0}, "a parameter, got 'haed'; did you mean head?"),
        ({"frist": 2.0}, "a parameter, got 'frist'; did you mean first?"),  # the nearest may be frozen
        ({"*": 0.1, "first": 2.0}, "a parameter that trains, got 'first', which is frozen; do take it out of"),
        ({"fir*.bias": 2.0}, "a parameter that trains, got 'fir*.bias', which is frozen; do take it out of"),
    ],
)
def test_a_rate_for_nothing_or_for_what_is_frozen_is_refused(network, split, recipe, rates, text):
    trainer = Trainer(recipe(freeze=["first"], learning_rates=rates), split(16), split(8), "test")
    with pytest.raises(RecipeError, match=re.escape(f"Expected every pattern of learning_rates to match {text}")):
        trainer.run(network())


def test_a_rate_may_mean_parameters_of_which_some_are_frozen(network):
    expect_groups(network(), Recipe(freeze=["first", "norm.scale"], learning_rates={"*": 0.1, "norm": 2.0}))


def test_the_optimiser_alone_refuses_a_rate_for_nothing(network):
    tx = make_optimizer(Recipe(learning_rates={"haed": 2.0}), 5)
    with pytest.raises(RecipeError, match="to match a parameter, got 'haed'; did you mean head"):
        TrainState.create(network(), tx)


def test_structures_differ_with_what_is_frozen_and_not_with_how_it_was_written(network):
    plain, named, starred = (Structure(network(), freeze) for freeze in ((), ("first",), ("first.*",)))
    assert named == starred and hash(named) == hash(starred)
    assert plain != named and hash(plain) != hash(named)
    assert Structure(network(), ("first",)) != Structure(network(), ("first", "norm"))


def test_one_step_serves_frozen_and_free_states_without_confusing_them(network, batch):
    step = train_step(TX)
    free, _ = step(TrainState.create(network(), TX), batch)
    frozen, _ = step(TrainState.create(network(), TX, freeze=FREEZE), batch)
    again, _ = step(TrainState.create(network(seed=0), TX, freeze=["first.*", "norm.*"]), batch)
    assert step._cache_size() == 2
    assert changed(network(), free.model) > changed(network(), frozen.model) == changed(network(), again.model)


class StopInEpoch(Callback):
    """Press Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch: int):
        self.epoch = epoch

    def on_steps(self, epoch, done, total):
        if (epoch, done) == (self.epoch, 3):
            import signal

            signal.raise_signal(signal.SIGINT)


def test_an_interrupted_run_with_frozen_layers_and_rates_resumes_bit_for_bit(
    network, split, recipe, tmp_path, run_differences, monkeypatch
):
    monkeypatch.setattr("cnnlab.training.loop._SECONDS_BETWEEN_REPORTS", 1e-9)
    how = recipe(freeze=["first"], learning_rates={"head": 2.0}, weight_decay=0.01)
    trainer = Trainer(how, split(35), split(20, seed=1), "test")
    unbroken = trainer.run(network(), seed=3)
    folder = RunFolder.create(tmp_path / "run")
    stopped = trainer.run(network(), seed=3, folder=folder, callbacks=[StopInEpoch(2)])
    assert stopped.interrupted and stopped.position.epoch == 1
    other_weights = network(seed=9)  # everything comes from the checkpoint, frozen arrays too
    resumed = trainer.run(other_weights, seed=3, folder=folder, resume=True)
    assert run_differences(resumed, unbroken) == []
    tampered = dataclasses.replace(resumed.last, extra=jax.tree.map(lambda x: x, resumed.last.extra))
    tampered.extra["first"]["bias"] += 1
    assert run_differences(dataclasses.replace(resumed, last=tampered), unbroken) == ["last.extra['first']['bias']"]


def test_the_start_tells_how_many_parameters_are_trained(network, split, recipe):
    heard = {}

    class Listen(Callback):
        def on_start(self, info):
            heard.update(info)

    Trainer(recipe(epochs=1, freeze=FREEZE), split(16), split(8), "test").run(network(), callbacks=[Listen()])
    assert (heard["parameters"], heard["trained"]) == (16 * 8 + 8 + 8 + 8 + 8 * 3 + 3, 8 * 3 + 3)
