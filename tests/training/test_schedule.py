"""Learning rates along a run, against formulas in NumPy (rtol 1e-6) and PyTorch's schedulers (rtol 1e-5)."""

import math

import numpy as np
import optax
import pytest

from cnnlab.training import Recipe, get_recipe
from cnnlab.training.schedule import learning_rate_schedule

PEAK = 0.3


def rates(recipe: Recipe, per_epoch: int, count: int, **options) -> np.ndarray:
    schedule = learning_rate_schedule(recipe, per_epoch, **options)
    return np.array([float(schedule(step)) for step in range(count)])


def by_hand(recipe: Recipe, per_epoch: int, count: int) -> np.ndarray:
    """The rates of all schedules but "step", written without JAX."""
    warmup, total = round(recipe.warmup_epochs * per_epoch), recipe.epochs * per_epoch
    low, end = recipe.warmup_start, recipe.final_rate
    found = []
    for step in range(count):
        if step < warmup:
            share = step / warmup
            if recipe.schedule == "one-cycle":
                share = (1 - math.cos(math.pi * share)) / 2
            found.append(low + (1 - low) * share)
            continue
        share = min((step - warmup) / (total - warmup), 1)
        if recipe.schedule in ("cosine", "one-cycle"):
            share = (1 - math.cos(math.pi * share)) / 2
        found.append(1.0 if recipe.schedule == "constant" else 1 + (end - 1) * share)
    return recipe.learning_rate * np.array(found)


@pytest.mark.parametrize("start", [0.0, 0.2])
@pytest.mark.parametrize(("warmup", "final"), [(0.0, 0.0), (1.5, 0.07), (2.277, 0.0)])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine", "one-cycle"])
def test_a_schedule_rises_and_falls_as_its_formula_says(schedule, warmup, final, start):
    warmup = 0.4 if schedule == "one-cycle" and not warmup else warmup
    recipe = Recipe(
        schedule=schedule, epochs=5, learning_rate=PEAK, warmup_epochs=warmup, warmup_start=start, final_rate=final
    )
    expected = by_hand(recipe, 10, 53)
    np.testing.assert_allclose(rates(recipe, 10, 53), expected, rtol=1e-6, atol=1e-7)
    assert expected.max() == PEAK and expected[round(warmup * 10)] == PEAK
    assert schedule == "constant" or expected[50] == pytest.approx(final * PEAK, abs=1e-12)


@pytest.mark.parametrize(("epochs", "per_epoch", "warmup"), [(60, 703, 1.0), (5, 10, 1.5), (2, 7, 0)])
def test_the_cosine_of_older_recipes_is_what_it_was_bit_for_bit(epochs, per_epoch, warmup):
    recipe = Recipe(schedule="cosine", epochs=epochs, learning_rate=0.03, warmup_epochs=warmup)
    before = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=0.03,
        warmup_steps=round(warmup * per_epoch),
        decay_steps=epochs * per_epoch,
    )
    now = learning_rate_schedule(recipe, per_epoch)
    for step in [*range(13), epochs * per_epoch // 2, epochs * per_epoch - 1]:
        assert np.float32(now(step)).tobytes() == np.float32(before(step)).tobytes()


def test_a_warm_up_that_rounds_up_to_the_whole_run_still_has_rates():
    recipe = Recipe(schedule="cosine", epochs=1, learning_rate=PEAK, warmup_epochs=0.9)
    np.testing.assert_allclose(rates(recipe, 3, 4), [0, 0.1, 0.2, 0.3], rtol=1e-6)


def test_one_cycle_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    warmup, total = 15, 50
    recipe = Recipe(
        schedule="one-cycle", epochs=5, learning_rate=PEAK, warmup_epochs=1.5, warmup_start=0.04, final_rate=1e-3
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=PEAK,
        total_steps=total + 1,  # PyTorch reaches the end at the last step, cnnlab one past it
        pct_start=(warmup + 1) / (total + 1),
        div_factor=1 / 0.04,
        final_div_factor=0.04 / 1e-3,
        anneal_strategy="cos",
        cycle_momentum=False,
    )
    expected = []
    for _ in range(total + 1):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        if len(expected) <= total:
            theirs.step()
    np.testing.assert_allclose(rates(recipe, 10, total + 1), expected, rtol=1e-5, atol=1e-8)
    assert np.argmax(expected) == warmup and expected[-1] == pytest.approx(PEAK * 1e-3)


def test_steps_are_those_of_pytorch():
    torch = pytest.importorskip("torch")
    recipe = Recipe(schedule="step", epochs=6, learning_rate=PEAK, milestones=[2, 3.5], step_divisor=5)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [8, 14], gamma=0.2)
    expected = []
    for _ in range(24):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    np.testing.assert_allclose(rates(recipe, 4, 24), expected, rtol=1e-5)
    assert len(set(np.round(expected, 6))) == 3


def test_milestones_count_epochs_of_the_run_even_after_a_warm_up():
    recipe = Recipe(schedule="step", epochs=4, learning_rate=1.0, milestones=[2, 3], warmup_epochs=1, warmup_start=0.5)
    expected = [0.5, 0.75, 1, 1, 0.1, 0.1, 0.01, 0.01]
    np.testing.assert_allclose(rates(recipe, 2, 8), expected, rtol=1e-6)


def test_milestones_that_fall_on_one_update_divide_twice():
    recipe = Recipe(schedule="step", epochs=2, learning_rate=1.0, milestones=[1.0, 1.1], step_divisor=2)
    np.testing.assert_allclose(rates(recipe, 2, 4), [1, 1, 0.25, 0.25], rtol=1e-6)


def test_the_triangle_of_airbench_rises_for_23_percent_and_ends_at_7_percent():
    recipe = Recipe(
        schedule="linear", epochs=10, learning_rate=11.5, warmup_epochs=2.3, warmup_start=0.2, final_rate=0.07
    )
    peak, total = round(2.3 * 48), 480
    expected = 11.5 * np.interp(np.arange(total + 1), [0, peak, total], [0.2, 1.0, 0.07])
    np.testing.assert_allclose(rates(recipe, 48, total + 1), expected, rtol=1e-6)


def test_linear_without_warm_up_falls_from_the_first_update_on():
    recipe = Recipe(schedule="linear", epochs=8, learning_rate=0.24)
    np.testing.assert_allclose(rates(recipe, 25, 201), 0.24 * (1 - np.arange(201) / 200), rtol=1e-6, atol=1e-8)


def test_with_accumulation_a_schedule_counts_updates():
    recipe = Recipe(schedule="linear", epochs=4, learning_rate=1.0, warmup_epochs=1.0)
    slow = recipe.replace(accumulate=3)
    np.testing.assert_array_equal(rates(slow, 15, 21), rates(recipe, 5, 21))
    odd = recipe.replace(accumulate=4)  # 60 batches are 15 updates; 15 batches of warm-up round to 4
    np.testing.assert_allclose(rates(odd, 15, 16), np.interp(np.arange(16), [0, 4, 15], [0, 1, 0]), atol=1e-6)


def test_another_peak_gives_the_same_curve_at_another_height():
    recipe = Recipe(schedule="cosine", epochs=5, learning_rate=PEAK, warmup_epochs=1)
    np.testing.assert_allclose(rates(recipe, 10, 50, peak=3.0), 10 * rates(recipe, 10, 50), rtol=1e-6)


def test_under_the_plateau_rule_the_rate_stays_outside():
    for name in ("thesis", "thesis-held-out"):
        assert rates(get_recipe(name), 10, 6).tolist() == [1.0] * 6
    assert rates(Recipe(learning_rate=0.5), 10, 2, peak=0.1).tolist() == [np.float32(0.2)] * 2
