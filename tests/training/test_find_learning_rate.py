"""The range test: what it does to the rate, what it suggests, and that it leaves nothing behind."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.training import RateSearch, Recipe, RecipeError, find_rate, make_optimizer
from cnnlab.training.find_rate import search_rate, smooth, suggest_rate
from cnnlab.training.step import Metrics

RATES = np.geomspace(1e-4, 10, 51)
RANGE = dict(low=1e-4, high=10.0, steps=26)


@pytest.fixture(scope="module")
def quiet(recipe):
    return recipe(batch_size=8, noise=0.0, held_out=0)


def test_the_means_are_weighted_averages_of_the_losses_so_far():
    losses = [3.0, 2.0, 5.0, 1.0]
    for n, mean in enumerate(smooth(losses), start=1):
        weights = 0.9 ** np.arange(n)[::-1]
        assert mean == pytest.approx((weights * losses[:n]).sum() / weights.sum())


def test_the_suggestion_is_a_tenth_of_the_rate_of_the_lowest_mean():
    losses = 2 - np.exp(-((np.log10(RATES) + 1) ** 2))
    lowest = RATES[np.argmin(smooth(losses.tolist()))]
    assert suggest_rate(RATES.tolist(), losses.tolist()) == pytest.approx(lowest / 10)
    assert 0.1 < lowest < 1  # the valley lies at 0.1, and the mean comes after


@pytest.mark.parametrize("losses", [[], [1.0, 2.0, 3.0]], ids=len)
def test_losses_that_never_fall_are_an_error(losses):
    with pytest.raises(ValueError, match=r"Expected losses that fall before they rise, got none .* rate \(low=\)"):
        suggest_rate(RATES[: len(losses)].tolist(), losses)


@pytest.fixture
def seen(monkeypatch):
    """The rate and the places of the images of every step, as they are taken."""
    steps, make = [], find_rate.make_recipe_step

    def watched(*args, **options):
        step = make(*args, **options)

        def watch(state, batch):
            steps.append((float(state.learning_rate_scale), batch["index"].tolist()))
            return step(state, batch)

        return watch

    monkeypatch.setattr(find_rate, "make_recipe_step", watched)
    return steps


def test_the_rate_rises_by_equal_factors(network, split, quiet, seen):
    found = search_rate(network(dropout=0.0), split(35), quiet, **RANGE)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-4, 10, 26)[: len(found.rates)], rtol=1e-12)
    np.testing.assert_allclose([rate for rate, _ in seen][: len(found.rates)], found.rates, rtol=1e-6)
    assert len(found.rates) == len(found.losses) == len(found.smoothed)
    assert found.suggestion in [rate / 10 for rate in found.rates]
    assert found.smoothed == tuple(smooth(found.losses))


def test_with_accumulation_several_batches_meet_one_rate(network, split, quiet, seen):
    """The first loss is the mean over two batches of the untrained network, in NumPy, with the statistics of each."""
    model, data = network(dropout=0.0), split(16)
    found = search_rate(model, data, quiet.replace(accumulate=2, order="dataset"), **RANGE)
    twice = np.repeat(np.geomspace(1e-4, 10, 26)[: len(seen) // 2], 2)
    np.testing.assert_allclose([rate for rate, _ in seen], twice, rtol=1e-6)
    assert [index for _, index in seen[:4]] == [[*range(8)], [*range(8, 16)]] * 2
    assert len(found.rates) in (len(seen) // 2, len(seen) // 2 - 1)  # the last one's loss may not be finite
    losses = [untrained_loss(model, data.images[at], data.labels[at]) for at in (slice(8), slice(8, 16))]
    assert abs(losses[0] - losses[1]) > 0.01
    assert found.losses[0] == pytest.approx(np.mean(losses), rel=1e-5)


def untrained_loss(model, images, labels) -> float:
    weights = {path: np.asarray(v[...], np.float64) for path, v in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    x = images.reshape(len(images), -1) / 255 @ weights["first", "kernel"] + weights["first", "bias"]
    x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    logits = np.maximum(x, 0) @ weights["head", "kernel"] + weights["head", "bias"]
    return float(np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]))


@pytest.fixture
def search(network, split, quiet, monkeypatch):
    """A search that meets given losses, one a step; it returns what it found and the losses it did not ask for."""

    def run(losses, **changes):
        rest = iter(losses)

        def step(state, batch):
            count = len(batch["label"])
            return state, Metrics(jnp.float32(next(rest) * count), jnp.int32(0), jnp.int32(count))

        monkeypatch.setattr(find_rate, "make_recipe_step", lambda *args, **options: step)
        return search_rate(network(), split(16), quiet.replace(**changes), **RANGE), list(rest)

    return run


def test_it_ends_where_the_smoothed_loss_is_four_times_the_lowest(search):
    """By hand: the means are 2, 1.474, 1.299, 4.120 (3.2 times the lowest), 5.800 (4.5 times)."""
    found, rest = search([2.0, 1.0, 1.0, 11.0, 11.0, 11.0, 11.0])
    assert found.losses == (2.0, 1.0, 1.0, 11.0, 11.0) and len(rest) == 2
    means = [0.2 / 0.1, 0.28 / 0.19, 0.352 / 0.271, 1.4168 / 0.3439, 2.37512 / 0.40951]
    np.testing.assert_allclose(found.smoothed, means, rtol=1e-6)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-4, 10, 26)[:5], rtol=1e-12)
    assert found.suggestion == found.rates[2] / 10


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_it_ends_at_a_loss_that_is_not_finite_and_leaves_it_out(search, bad):
    found, rest = search([2.0, 1.0, bad, 1.0, 1.0])
    assert found.losses == (2.0, 1.0) and len(found.rates) == len(found.smoothed) == 2 and rest == [1.0, 1.0]


def test_with_accumulation_a_loss_is_the_mean_of_those_at_its_rate(search):
    found, rest = search([3.0, 1.0, 1.0, 0.5, 0.25, np.nan, 7.0], accumulate=2)
    assert found.losses == (2.0, 0.75) and rest == [7.0]


def test_the_suggestion_moves_the_rate_of_muon_with_the_other():
    found = RateSearch(0.05, (), (), ())
    recipe = Recipe(optimizer="muon", learning_rate=0.01, muon_learning_rate=0.02, epochs=7)
    assert found.applied(recipe) == recipe.replace(learning_rate=0.05, muon_learning_rate=0.02 * 5)
    sgd = Recipe(learning_rate=0.01, muon_learning_rate=0.02)
    assert found.applied(sgd) == sgd.replace(learning_rate=0.05)


def test_a_recipe_at_the_suggestion_updates_as_the_test_did_there(network, split, quiet, monkeypatch):
    """What the test's optimiser and its scale make of a gradient is what the optimiser of the applied recipe makes."""
    made, make = [], find_rate.make_optimizer
    monkeypatch.setattr(find_rate, "make_optimizer", lambda *args: made.append(make(*args)) or made[-1])
    recipe = quiet.replace(optimizer="muon", schedule="constant", learning_rate=0.02, muon_learning_rate=0.5)
    found = search_rate(network(), split(35), recipe, **RANGE)
    params = {"hidden": {"kernel": jnp.eye(3, 4)}, "head": {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}}
    updates = [
        tx.update(params, tx.init(params), params)[0] for tx in (made[0], make_optimizer(found.applied(recipe), 1))
    ]
    tested, applied = (jax.tree.leaves(update) for update in updates)
    for before, after in zip(tested, applied, strict=True):
        np.testing.assert_allclose(after, found.suggestion * before, rtol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_the_schedule_of_the_recipe_and_its_rate_do_not_matter(network, split, quiet, optimizer):
    plain = quiet.replace(optimizer=optimizer)
    changes = dict(schedule="cosine", warmup_epochs=1, learning_rate=0.02, muon_learning_rate=0.04)
    other = plain.replace(**changes, average="ema")
    assert search_rate(network(), split(35), plain, **RANGE) == search_rate(network(), split(35), other, **RANGE)


def test_muon_that_rescales_weights_is_refused(network, split, quiet):
    recipe = quiet.replace(optimizer="muon", schedule="linear", muon_normalize=True)
    with pytest.raises(RecipeError, match=r"Expected a recipe without muon_normalize, got one; do replace\("):
        search_rate(network(), split(35), recipe, **RANGE)


@pytest.mark.parametrize("changes", [{"low": 0.0}, {"low": 2.0, "high": 1.0}, {"steps": 1}, {"high": np.inf}], ids=str)
def test_impossible_bounds_are_an_error(network, split, quiet, changes):
    with pytest.raises(ValueError, match="Expected 0 < low < high and 2 steps or more, got "):
        search_rate(network(), split(35), quiet, **{**RANGE, **changes})


def test_batches_go_round_the_images_in_the_order_of_an_epoch(split, quiet):
    data = find_rate.put_on_device(split(20))
    batches = list(itertools.islice(find_rate._batches(quiet, data, seed=3), 5))
    assert [int(batch["epoch"]) for batch in batches] == [0, 0, 1, 1, 2]
    first, second = (np.concatenate([b["index"] for b in batches[i : i + 2]]) for i in (0, 2))
    assert len(set(first.tolist())) == 16 and first.tolist() != second.tolist()
    for batch in batches:
        np.testing.assert_array_equal(batch["image"], split(20).images[batch["index"]])
        np.testing.assert_array_equal(batch["label"], split(20).labels[batch["index"]])


@pytest.fixture(scope="module")
def dataset(split):
    train, test = split(35), split(20, seed=1)
    return cnnlab.dataset_from_arrays(train.images, train.labels, test.images, test.labels)


def test_fitting_after_it_equals_fitting_without_it_bit_for_bit(dataset, network, recipe, differences):
    def fitted(model):
        run = cnnlab.fit(model, dataset, recipe(epochs=2), seed=5, progress=False)
        return [run.last, nnx.state(run.best), [record["loss"] for record in run.history]]

    model = network()
    model.eval()
    without = fitted(model)
    before = jax.tree.map(jnp.copy, nnx.state(model))
    found = cnnlab.find_learning_rate(model, dataset, recipe(epochs=2), seed=5, **RANGE)
    assert differences(nnx.state(model), before) == [] and model.norm.use_running_average
    after = fitted(model)
    assert differences(after[:2], without[:2]) == [] and after[2] == without[2]
    assert found == cnnlab.find_learning_rate(model, dataset, recipe(epochs=2), seed=5, **RANGE)


def test_the_suggestion_trains_better_than_a_hundredth_of_it(dataset, network, recipe):
    quiet = recipe(epochs=8, noise=0.0, schedule="constant", target_accuracy=2.0)
    found = cnnlab.find_learning_rate(network(), dataset, quiet, **{**RANGE, "steps": 50})

    def loss(rate):
        run = cnnlab.fit(network(), dataset, quiet.replace(learning_rate=rate), progress=False)
        return run.history[-1]["train_loss"]

    assert loss(found.suggestion) < loss(found.suggestion / 100) - 0.05
