"""The range test: what it does to the rate, what it suggests, and that it leaves nothing behind."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import cnnlab
from cnnlab.training import RecipeError, find_rate
from cnnlab.training.find_rate import search_rate, smooth, suggest_rate

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


def test_the_rate_rises_by_equal_factors_and_the_first_losses_are_those_of_the_untrained_network(
    network, split, quiet, monkeypatch
):
    seen, make = [], find_rate.make_train_step

    def watched(*args, **options):
        step = make(*args, **options)

        def watch(state, batch):
            seen.append(float(state.learning_rate_scale))
            return step(state, batch)

        return watch

    monkeypatch.setattr(find_rate, "make_train_step", watched)
    found = search_rate(network(dropout=0.0), split(35), quiet, **RANGE)
    np.testing.assert_allclose(found.rates, np.geomspace(1e-4, 10, 26)[: len(found.rates)], rtol=1e-12)
    np.testing.assert_allclose(seen[: len(found.rates)], found.rates, rtol=1e-6)
    assert len(found.rates) == len(found.losses) == len(found.smoothed)
    assert found.suggestion in [rate / 10 for rate in found.rates]
    assert found.smoothed == tuple(smooth(found.losses))


def test_with_accumulation_several_batches_meet_one_rate(network, split, quiet):
    found = search_rate(network(dropout=0.0), split(16), quiet.replace(accumulate=2, order="dataset"), **RANGE)
    whole = search_rate(network(dropout=0.0), split(16), quiet.replace(batch_size=16, order="dataset"), **RANGE)
    assert found.rates[:20] == whole.rates[:20]
    assert found.losses[0] != whole.losses[0]  # batch statistics of eight are not those of sixteen
    np.testing.assert_allclose(found.losses[:10], whole.losses[:10], rtol=0.2)


def test_it_ends_when_the_loss_explodes(network, split, quiet):
    found = search_rate(network(), split(35), quiet.replace(schedule="constant"), low=1e-4, high=1e6, steps=60)
    assert len(found.rates) < 60 and all(np.isfinite(found.losses))
    assert found.smoothed[-1] > 4 * min(found.smoothed) or found.rates[-1] < 1e6


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
