"""What a recipe may hold: types, ranges, and fields that go together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from .recipe import Recipe


class RecipeError(ValueError):
    """A recipe that cannot be: unknown key, wrong type or impossible value."""


_INF = float("inf")
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, _INF),
    "batch_size": (1, _INF),
    "learning_rate": (0, 1e6),
    "warmup_epochs": (0, _INF),
    "warmup_start": (0, 1),
    "final_rate": (0, 1),
    "step_divisor": (1, _INF),
    "momentum": (0, 1),
    "beta2": (0, 1),
    "muon_learning_rate": (0, 1e6),
    "muon_momentum": (0, 1),
    "muon_steps": (1, 100),
    "clip_norm": (0, _INF),
    "accumulate": (1, _INF),
    "average_decay": (0, 1),
    "average_every": (1, _INF),
    "average_ramp": (0, 100),
    "weight_decay": (0, _INF),
    "plateau_patience": (1, _INF),
    "plateau_divisor": (1, _INF),
    "minimum_learning_rate": (0, _INF),
    "convergence_patience": (1, _INF),
    "target_accuracy": (0, _INF),
    "target_train_accuracy": (0, _INF),
    "noise": (0, _INF),
    "crop": (0, 1024),
    "cutout": (0, 1024),
    "mixup": (0, 1000),
    "cutmix": (0, 1000),
    "pca_colour": (0, _INF),
    "label_smoothing": (0, 1),
    "held_out": (0, _INF),
}


def checked_field(name: str, value: Any, kind: Any) -> Any:
    """Return the value of a field as it is kept, of its type; RecipeError otherwise."""
    check = _CHECKS.get(name)
    return check(value) if check else _checked(name, value, kind)


def expect_ranges(recipe: Recipe) -> None:
    """Raise RecipeError for a number that is too small or too large."""
    for name, (low, high) in _RANGES.items():
        value = getattr(recipe, name)
        if not low <= value <= high:
            limit = f"at least {low:g}" if high == _INF else f"from {low:g} to {high:g}"
            raise RecipeError(f"Expected {name} {limit}, got {value!r}; do change it in recipe {recipe.name!r}.")
    if recipe.learning_rate == 0:
        raise RecipeError("Expected a positive learning_rate, got 0; do choose one such as 0.01.")
    for name in ("plateau_divisor", "step_divisor"):
        if getattr(recipe, name) == 1:
            raise RecipeError(f"Expected {name} above 1, got 1; do choose one such as 10.")


def expect_sense(recipe: Recipe) -> None:
    """Raise RecipeError for fields that contradict each other, or that ask for what would not happen.

    A number that the optimiser or schedule does not look at, such as `beta2` with "sgd", is none of these: recipes are
    changed one field at a time.
    """
    _expect_schedule(recipe)
    _expect_optimizer(recipe)


def _expect_schedule(recipe: Recipe) -> None:
    schedule, warmup, milestones = recipe.schedule, recipe.warmup_epochs, recipe.milestones
    if warmup and schedule == "plateau":
        raise RecipeError(
            f'Expected no warmup_epochs with schedule = "plateau", got {warmup:g}; '
            "do set warmup_epochs = 0, or another schedule."
        )
    if schedule == "one-cycle" and not warmup:
        raise RecipeError('Expected warmup_epochs with schedule = "one-cycle", got 0; do set it, e.g. to 0.3 of all.')
    if warmup >= recipe.epochs:
        raise RecipeError(f"Expected warmup_epochs below the {recipe.epochs} epochs, got {warmup:g}; do lower it.")
    if bool(milestones) != (schedule == "step"):
        raise RecipeError(
            f'Expected milestones with schedule = "step" and only there, got {list(milestones)} with "{schedule}"; '
            "do set milestones, e.g. [80, 120], or the schedule."
        )
    if milestones and milestones[0] <= warmup:
        raise RecipeError(
            f"Expected milestones after the {warmup:g} epochs of warm-up, got {milestones[0]:g}; "
            "do lower warmup_epochs, or leave that milestone out."
        )
    if milestones and milestones[-1] >= recipe.epochs:
        raise RecipeError(
            f"Expected milestones below the {recipe.epochs} epochs, got {milestones[-1]:g}; "
            "do raise epochs, or leave that milestone out."
        )


def _expect_optimizer(recipe: Recipe) -> None:
    optimizer = recipe.optimizer
    if recipe.nesterov and not recipe.momentum:
        raise RecipeError("Expected momentum with nesterov, got 0; do set momentum, or nesterov = false.")
    if recipe.nesterov and optimizer == "adamw":
        raise RecipeError('Expected nesterov with "sgd" or "muon", got it with "adamw"; do set nesterov = false.')
    for name in ("momentum", "beta2"):
        if optimizer == "adamw" and getattr(recipe, name) == 1:
            raise RecipeError(f'Expected {name} below 1 with "adamw", got 1; do choose one such as 0.9.')
    if recipe.muon_normalize and (optimizer != "muon" or recipe.schedule == "plateau"):
        raise RecipeError(
            'Expected muon_normalize with optimizer = "muon" and a schedule other than "plateau", '
            f'got "{optimizer}" and "{recipe.schedule}"; do set muon_normalize = false.'
        )
    if recipe.weight_decays and not recipe.weight_decay:
        raise RecipeError("Expected weight_decay with weight_decays, got 0; do set it, e.g. to 5e-4.")


def _images_or_share(value: Any) -> int | float:
    if not isinstance(value, float):
        return _checked("held_out", value, int)
    if 0 < value < 1:
        return value
    if value == 0:
        return 0
    raise RecipeError(f"Expected held_out to be a whole number of images or a share below 1, got {value!r}.")


def _milestones(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple):
        raise RecipeError(f"Expected milestones to be a list of epochs such as [80, 120], got {value!r}.")
    epochs = tuple(_checked("each of milestones", item, float) for item in value)
    if any(epoch <= 0 for epoch in epochs) or list(epochs) != sorted(set(epochs)):
        raise RecipeError(f"Expected milestones to be epochs that rise from above 0, got {list(value)}.")
    return epochs


def _flip(value: Any) -> str:
    if isinstance(value, bool):
        return "random" if value else "none"
    return _checked("flip", value, Literal["none", "random", "alternating"])


def _patterns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise RecipeError(f'Expected freeze to be a list of patterns such as ["conv1", "layer1.*"], got {value!r}.')
    return tuple(value)


def _factors(name: str, value: Any) -> tuple[tuple[str, float], ...]:
    pairs = tuple(value.items() if isinstance(value, Mapping) else value) if isinstance(value, _TABLES) else None
    if pairs is None or not all(isinstance(p, list | tuple) and len(p) == 2 and isinstance(p[0], str) for p in pairs):
        raise RecipeError(f'Expected {name} to be a table such as {{"head": 10.0}}, got {value!r}.')
    factors = tuple((pattern, _checked(f"the factor of {pattern!r}", factor, float)) for pattern, factor in pairs)
    patterns = [pattern for pattern, _ in factors]
    for pattern, factor in factors:
        if factor <= 0 and name == "learning_rates":
            raise RecipeError(f"Expected a positive factor for {pattern!r}, got {factor:g}; do put it into freeze.")
        if factor < 0:
            raise RecipeError(f"Expected a factor of at least 0 for {pattern!r}, got {factor:g}; do change {name}.")
        if patterns.count(pattern) > 1:
            raise RecipeError(f"Expected each pattern of {name} once, got {pattern!r} again; do keep one.")
    return factors


_TABLES = (Mapping, list, tuple)
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "held_out": _images_or_share,
    "flip": _flip,
    "milestones": _milestones,
    "freeze": _patterns,
    "weight_decays": partial(_factors, "weight_decays"),
    "learning_rates": partial(_factors, "learning_rates"),
}


def _checked(name: str, value: Any, kind: Any) -> Any:
    """Return `value` as the field's type (an int may stand for a float); RecipeError otherwise."""
    choices = get_args(kind)
    if choices:
        if value not in choices:
            raise RecipeError(f"Expected {name} to be one of {', '.join(choices)}, got {value!r}.")
        return value
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else _INF
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RecipeError(f"Expected {name} to be of type {kind.__name__}, got {value!r}.")
    if kind is float and not math.isfinite(value):
        raise RecipeError(f"Expected {name} to be a finite number, got {value}.")
    return value
