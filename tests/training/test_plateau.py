"""The plateau rule of the thesis, against hand-written accuracies and a transcription of its loop."""

import dataclasses
import json

import numpy as np
import pytest

from cnnlab.training import Plateau

THESIS_RATES = [1e-2, 1e-3, 1e-4, 1e-5, 1.0000000000000002e-06, 1.0000000000000002e-07]


def played(accuracies: list[float], start: Plateau | None = None) -> list[Plateau]:
    """The counters after each epoch, until the rule stops."""
    states, now = [], start or Plateau()
    for accuracy in accuracies:
        states.append(now := now.update(accuracy))
        if now.stopped:
            break
    return states


def loop_of_the_thesis(accuracies: list[float], epoch: int = 0) -> list[tuple]:
    """The Julia loop line by line: (best_acc, saved epoch, last_improvement, opt.eta, what happened)."""
    log, best_acc, best_epoch, last_improvement, eta = [], 0.0, 0, 0, 1e-2
    for epoch_idx, acc in enumerate(accuracies, start=1):
        happened = None
        if acc >= best_acc:
            best_acc, best_epoch, last_improvement = acc, epoch_idx, epoch_idx
        if acc >= 0.999:
            log.append((best_acc, best_epoch, last_improvement, eta, "target"))
            break
        if epoch_idx - last_improvement >= 5 and eta > 1e-6:
            eta /= 10.0
            last_improvement = epoch_idx
            happened = "cut"
        if epoch_idx - last_improvement >= 10:
            log.append((best_acc, best_epoch, last_improvement, eta, "converged"))
            break
        log.append((best_acc, best_epoch, last_improvement, eta, happened))
    return log


def random_accuracies(seed: int) -> list[float]:
    """Up to 120 epochs that rise, tie, fall and now and then reach the target."""
    rng = np.random.default_rng(seed)
    rise = np.linspace(0, rng.uniform(0, 1.0), 120) ** rng.uniform(0.2, 2)
    noise = rng.normal(0, rng.choice([0, 0.01, 0.1]), 120)
    values = np.clip(rise * rng.choice([-1, 0, 1], p=[0.3, 0.1, 0.6]) + noise + (0.5 if seed % 3 else 0), 0, 1)
    return [float(v) for v in values.round(int(rng.integers(1, 4)))][: rng.integers(0, 121)]


def test_the_best_is_the_highest_accuracy_and_a_tie_counts_as_new():
    states = played([0.3, 0.5, 0.4, 0.5, 0.2])
    assert [s.best for s in states] == [0.3, 0.5, 0.5, 0.5, 0.5]
    assert [s.best_epoch for s in states] == [1, 2, 2, 4, 4]
    assert [s.improved for s in states] == [True, True, False, True, False]
    assert [s.epoch for s in states] == [1, 2, 3, 4, 5]
    assert [s.event for s in states] == [None] * 5


def test_even_an_accuracy_of_zero_is_the_first_best():
    assert not Plateau().improved
    after = Plateau().update(0.0)
    assert after.improved and after.best_epoch == 1


def test_the_rate_is_cut_in_the_fifth_epoch_without_improvement_and_not_before():
    states = played([0.5] + [0.4] * 5)
    assert [s.event for s in states] == [None] * 5 + ["cut"]
    assert [s.learning_rate for s in states] == [1e-2] * 5 + [1e-3]
    assert states[-1].last_improvement == 6 and states[-1].best_epoch == 1


def test_a_cut_restarts_the_counter_so_that_the_next_comes_five_epochs_later():
    states = played([0.5] + [0.4] * 10)
    assert [s.epoch for s in states if s.event == "cut"] == [6, 11]
    assert not any(s.stopped for s in states)


def test_an_improvement_restarts_the_counter_too():
    states = played([0.5, 0.4, 0.4, 0.4, 0.4, 0.6, 0.4, 0.4, 0.4, 0.4, 0.4])
    assert [s.epoch for s in states if s.event == "cut"] == [11]


def test_ties_for_ever_never_cut():
    assert {s.event for s in played([0.1] * 100)} == {None}


def test_the_rates_are_those_of_julia_in_double_precision_and_convergence_comes_ten_epochs_after_the_last_cut():
    states = played([0.5] + [0.4] * 99)
    rates = list(dict.fromkeys(s.learning_rate for s in states))
    assert rates == THESIS_RATES
    assert [s.epoch for s in states if s.event == "cut"] == [6, 11, 16, 21, 26]
    assert (states[-1].epoch, states[-1].event, states[-1].best_epoch) == (36, "converged", 1)


def test_while_the_rate_can_be_cut_there_is_no_convergence_even_with_less_patience_for_it():
    states = played([0.5] + [0.4] * 99, Plateau(convergence_patience=5))
    assert states[-1].epoch == 31 and states[-1].learning_rate == THESIS_RATES[-1]


@pytest.mark.parametrize(("rate", "event"), [(1e-6, "converged"), (1.0000000000000002e-06, "cut")])
def test_a_rate_at_the_minimum_is_not_cut_and_one_just_above_is(rate, event):
    states = played([0.5] + [0.4] * 10, Plateau(learning_rate=rate))
    assert next(s.event for s in states if s.event) == event


def test_an_improvement_at_the_lowest_rate_puts_convergence_off():
    states = played([0.5] + [0.4] * 9 + [0.5] + [0.4] * 10, Plateau(learning_rate=1e-7))
    assert [s.epoch for s in states if s.stopped] == [21]


def test_the_target_stops_the_run_and_the_best_is_recorded_in_that_epoch():
    states = played([0.9, 0.9985, 0.999, 1.0])
    assert [s.event for s in states] == [None, None, "target"]
    assert (states[-1].best, states[-1].best_epoch, states[-1].improved) == (0.999, 3, True)


def test_the_target_goes_before_a_cut_and_need_not_be_the_best():
    states = played([1.0] + [0.95] * 5, Plateau(target=0.95, best=1.0, best_epoch=0))
    assert [s.event for s in states] == ["target"]
    late = played([0.5], Plateau(target=0.4, best=0.8, best_epoch=1, epoch=8, last_improvement=1))
    assert (late[-1].event, late[-1].learning_rate, late[-1].best_epoch) == ("target", 1e-2, 1)


def test_patience_divisor_and_minimum_are_what_they_say():
    states = played([0.5] + [0.4] * 20, Plateau(0.8, patience=2, divisor=2, minimum=0.3, convergence_patience=3))
    assert [(s.epoch, s.learning_rate) for s in states if s.event == "cut"] == [(3, 0.4), (5, 0.2)]
    assert (states[-1].epoch, states[-1].event) == (8, "converged")


def test_it_equals_the_loop_of_the_thesis_on_many_random_runs():
    seen = set()
    for seed in range(600):
        accuracies = random_accuracies(seed)
        states = played(accuracies)
        got = [(s.best, s.best_epoch, s.last_improvement, s.learning_rate, s.event) for s in states]
        assert got == loop_of_the_thesis(accuracies), f"seed {seed}"
        seen |= {s.event for s in states}
    assert seen == {None, "cut", "converged", "target"}  # the lists reach every branch


def test_half_way_through_json_and_back_the_run_goes_on_the_same():
    accuracies = [0.5] + [0.4] * 40
    whole = played(accuracies)
    for cut in (1, 5, 6, 15, 26, 30):
        text = json.dumps(whole[cut - 1].to_dict())
        assert played(accuracies[cut:], Plateau(**json.loads(text))) == whole[cut:]


def test_update_leaves_the_old_counters_alone_and_nobody_can_change_them():
    old = Plateau(epoch=5, last_improvement=1, best=0.5, best_epoch=1)
    before = old.to_dict()
    assert old.update(0.1) == old.update(0.1) != old
    assert old.to_dict() == before
    with pytest.raises(dataclasses.FrozenInstanceError):
        old.best = 1.0
