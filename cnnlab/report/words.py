"""Numbers and facts of a run, said in words. Everything here returns plain text; the page escapes it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

MISSING = "–"
_SPACE = "\u00a0"  # keeps a number and its unit on one line


def as_number(value: Any) -> float:
    """`value` as a float; NaN for anything that is not a number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def percent(value: Any, digits: int = 1, sign: bool = True) -> str:
    """0.604 as "60.4 %", or as "60.4" without the sign."""
    number = as_number(value)
    if not math.isfinite(number):
        return MISSING
    return f"{100 * number:.{digits}f}" + (f"{_SPACE}%" if sign else "")


def count(value: Any) -> str:
    """10000 as "10,000"."""
    number = as_number(value)
    return f"{number:,.0f}" if math.isfinite(number) else MISSING


def plural(value: Any, noun: str) -> str:
    """1 as "1 epoch" and 57 as "57 epochs"."""
    return f"{count(value)}{_SPACE}{noun}{'' if as_number(value) == 1 else 's'}"


def rate(value: Any) -> str:
    """A learning rate in short: 0.01 as "0.01", 0.0005 as "5e-4", 1.0000000000000002e-06 as "1e-6"."""
    number = as_number(value)
    if not math.isfinite(number):
        return ""
    if number >= 0.01 or number <= 0:
        return f"{number:.3g}"
    digits, exponent = f"{number:.2e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def duration(seconds: Any) -> str:
    """734.2 as "12 min 14 s"."""
    number = as_number(seconds)
    if not math.isfinite(number) or number < 0:
        return MISSING
    if number < 60:
        return f"{number:.1f}{_SPACE}s"
    minutes, rest = divmod(round(number), 60)
    if minutes < 60:
        return f"{minutes}{_SPACE}min {rest}{_SPACE}s"
    return f"{minutes // 60}{_SPACE}h {minutes % 60}{_SPACE}min"


def mean_and_std(stats: Mapping[str, Any], digits: int = 1) -> str:
    """{"mean": 0.6, "std": 0.004} as "60.0 ± 0.4 %"; without a spread where there is one value only."""
    spread = percent(stats.get("std"), digits, sign=False)
    if spread == MISSING or as_number(stats.get("n")) < 2:
        return percent(stats.get("mean"), digits)
    return f"{percent(stats.get('mean'), digits, sign=False)} ± {spread}{_SPACE}%"


def best_of(history: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """Best epoch and its monitored accuracy: as the run recorded it, else the latest of the highest."""
    last = history[-1] if history else {}
    if math.isfinite(as_number(last.get("best_epoch"))):
        return last["best_epoch"], last.get("best_accuracy")
    known = [line for line in history if math.isfinite(as_number(line.get("accuracy")))]
    if not known:
        return None, None
    best = max(reversed(known), key=lambda line: line["accuracy"])
    return best.get("epoch"), best["accuracy"]


def diverged(result: Mapping[str, Any] | None) -> bool:
    """Whether a run ended because a number was not finite any more, by its `result.json`."""
    return str((result or {}).get("stop_reason")).startswith("diverged")


def headline(
    model: str,
    dataset: str,
    history: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any] | None,
    planned: Any,
) -> str:
    """The outcome of one run in a sentence."""
    if result is None:
        if not history:
            return f"{model} on {dataset}: no epoch has finished yet."
        epoch, accuracy = best_of(history)
        monitor = history[-1].get("monitor") or "monitored"
        of = f" of {count(planned)}" if math.isfinite(as_number(planned)) else ""
        return (
            f"{model} has reached {percent(accuracy)} on the {monitor} images of {dataset} so far: "
            f"best at epoch {count(epoch)}, after epoch {count(history[-1].get('epoch'))}{of}."
        )
    if diverged(result):
        kept = "no epoch before that is kept."
        if math.isfinite(as_number(result.get("best_epoch"))):
            kept = f"best before that at epoch {count(result['best_epoch'])}, {percent(result.get('best_accuracy'))}."
        return f"{model} on {dataset} diverged in epoch {count(result.get('epochs'))}; {kept}"
    tail = f"after {plural(result.get('epochs'), 'epoch')}; best at epoch {count(result.get('best_epoch'))}."
    evaluation = result.get("evaluation") or {}
    if "accuracy" not in evaluation:
        return f"{model} reached {percent(result.get('best_accuracy'))} on {dataset} {tail}"
    where = f"the {count(evaluation.get('images'))} {evaluation.get('split') or 'test'} images of {dataset}"
    return f"{model} reached {percent(evaluation['accuracy'])} on {where} {tail}"


def seeds_headline(model: str, dataset: str, stats: Mapping[str, Any], images: Any, total: int, lost: int = 0) -> str:
    """The outcome of several seeds, of which some may have diverged (`lost`), in a sentence."""
    n = as_number(stats.get("n"))
    if total == lost:
        return f"{model} on {dataset}: {plural(total, 'seed')} of {total} diverged."
    if not n > 0:
        return f"{model} on {dataset}: none of {plural(total, 'seed')} has finished yet."
    where = f"the {count(images)} test images" if math.isfinite(as_number(images)) else "the test images"
    spread = f"mean ± standard deviation over {plural(n, 'seed')}" if n > 1 else "one seed, so no spread is known"
    some = f"; {plural(lost, 'seed')} of {total} diverged" if lost else ""
    some += f"; {plural(total - lost - n, 'seed')} of {total} still to finish" if total - lost > n else ""
    return f"{model} reached {mean_and_std(stats)} on {where} of {dataset} ({spread}{some})."


def honesty(protocol: Any, history: Sequence[Mapping[str, Any]], held_out: Any) -> str:
    """How far the figure can be trusted: which images steered the training, when the test set was read.

    Args:
        protocol: "thesis", "held-out", or None while the run is unfinished.
        history: lines of `metrics.jsonl`; their `monitor` speaks for an unfinished run.
        held_out: number of held-out images.

    Returns:
        One sentence, or "" when nothing is known.
    """
    monitor = history[-1].get("monitor") if history else None
    if protocol == "thesis" or (protocol is None and monitor == "test"):
        return (
            "The test set steered the learning rate and chose the best epoch, as in the thesis, so this "
            "figure is optimistic: expect less on new images."
        )
    many = f"{count(held_out)} " if as_number(held_out) > 0 else ""
    if protocol == "held-out":
        return (
            f"The test set was read once, at the end: {many}held-out training images steered the learning "
            "rate and chose the best epoch."
        )
    if protocol is None and monitor == "validation":
        return f"This was measured on {many}held-out training images: the test set has not been read yet."
    return ""


def confusions(pairs: Sequence[tuple[str, str, int, int]]) -> list[str]:
    """Each confused pair as a sentence."""
    return [
        f"{true} was taken for {predicted} {count(often)} {'time' if often == 1 else 'times'} "
        f"in {count(total)} ({percent(often / total)})."
        for true, predicted, often, total in pairs
    ]


def curves_alt(history: Sequence[Mapping[str, Any]], monitor: str) -> str:
    """The learning curves for those who cannot see them."""
    epoch, accuracy = best_of(history)
    first, last = history[0], history[-1]
    losses = [as_number(line.get("train_loss")) for line in (first, last)]
    fall = f"Training loss goes from {losses[0]:.2f} to {losses[1]:.2f}" if all(map(math.isfinite, losses)) else ""
    return (
        f"Learning curves over {plural(len(history), 'epoch')}. {fall + '; ' if fall else ''}"
        f"{monitor} accuracy is best at epoch {count(epoch)} with {percent(accuracy)} "
        f"and ends at {percent(last.get('accuracy'))}."
    )
