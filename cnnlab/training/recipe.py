"""A recipe: everything that decides how a network is trained, as data."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints


class RecipeError(ValueError):
    """A recipe that cannot be: unknown key, wrong type or impossible value."""


@dataclass(frozen=True)
class Recipe:
    """How to train. Every field is a plain value; `to_dict` and TOML / JSON files round-trip.

    Attributes:
        name: what the recipe is called.
        source: where it comes from.
        result: what it reaches, and how that was measured.
        epochs: passes over the training images, at most.
        batch_size: images per step.
        order: "dataset" cuts the batches once in the order of the data set; "permuted" once in a random
            order; "shuffled" anew every epoch.
        last_batch: "keep" trains on the short last batch, "drop" leaves it out.
        learning_rate: initial ("plateau"), constant, or highest ("cosine") rate.
        schedule: "plateau" (`cnnlab.training.Plateau`), "constant" or "cosine" (to zero, after warm-up).
        warmup_epochs: linear rise of the rate from zero, "cosine" only.
        momentum: of stochastic gradient descent.
        nesterov: Nesterov's form of momentum, which must not be 0 then.
        weight_decay: added to the gradient of weights (not of biases and norms), times the weight.
        plateau_patience: epochs without improvement before a cut.
        plateau_divisor: what a cut divides the rate by, above 1.
        minimum_learning_rate: at or below this rate there are no cuts.
        convergence_patience: epochs without improvement or cut before the run has converged.
        target_accuracy: stop when the monitored accuracy reaches it.
        noise: standard deviation of the normal noise added to training images in [0, 1].
        flip: mirror training images at random.
        crop: pad training images by so many pixels and cut at random.
        standardize: subtract the mean and divide by the standard deviation of the training images.
        label_smoothing: share of the target spread evenly over all classes.
        held_out: training images set aside to steer (rate, best epoch); the test set is then read once, at
            the end. Below 1 it is a share of the training images. 0: the test set steers, as in the thesis.
        freeze: patterns of the parameters that stay as they are, e.g. `["conv1", "layer[12]", "*.bias"]`: a dotted path
            (`layer1.0.conv1.kernel`), that of a module around it, or either with the wildcards of a shell. They get no
            update, no weight decay and no optimiser state, and a module with nothing but frozen parameters runs
            as in evaluation: its BatchNorm uses and keeps its statistics, its dropout is off.
        learning_rates: factors on the rate of groups of parameters by such patterns, e.g. `{"*" = 0.1, "head" = 1.0}`;
            the last that matches counts, 1 where none does, and a pattern stands there once. They act on whole updates,
            weight decay included.
    """

    name: str = "custom"
    source: str = ""
    result: str = ""
    epochs: int = 100
    batch_size: int = 32
    order: Literal["dataset", "permuted", "shuffled"] = "shuffled"
    last_batch: Literal["keep", "drop"] = "keep"
    learning_rate: float = 0.01
    schedule: Literal["plateau", "constant", "cosine"] = "plateau"
    warmup_epochs: float = 0.0
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 0.0
    plateau_patience: int = 5
    plateau_divisor: float = 10.0
    minimum_learning_rate: float = 1e-6
    convergence_patience: int = 10
    target_accuracy: float = 0.999
    noise: float = 0.0
    flip: bool = False
    crop: int = 0
    standardize: bool = False
    label_smoothing: float = 0.0
    held_out: int | float = 0
    freeze: Sequence[str] = ()  # kept as a tuple
    learning_rates: Mapping[str, float] | Sequence[tuple[str, float]] = ()  # kept as a tuple of pairs, to be hashable

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value, check = getattr(self, field.name), _CHECKS.get(field.name)
            value = check(value) if check else _checked(field.name, value, hints[field.name])
            object.__setattr__(self, field.name, value)
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if not low <= value <= high:
                limit = f"at least {low:g}" if high == _INF else f"from {low:g} to {high:g}"
                raise RecipeError(f"Expected {name} {limit}, got {value!r}; do change it in recipe {self.name!r}.")
        if self.learning_rate == 0:
            raise RecipeError("Expected a positive learning_rate, got 0; do choose one such as 0.01.")
        if self.plateau_divisor == 1:
            raise RecipeError("Expected plateau_divisor above 1, got 1; do choose one such as 10.")
        if self.nesterov and not self.momentum:
            raise RecipeError("Expected momentum with nesterov, got 0; do set momentum, or nesterov = false.")
        if self.warmup_epochs and self.schedule != "cosine":
            raise RecipeError(
                f'Expected warmup_epochs only with schedule = "cosine", got {self.warmup_epochs:g} with '
                f'"{self.schedule}"; do set warmup_epochs = 0, or the schedule.'
            )
        if self.schedule == "cosine" and self.warmup_epochs >= self.epochs:
            raise RecipeError(
                f"Expected warmup_epochs below the {self.epochs} epochs, got {self.warmup_epochs:g}; do lower it."
            )

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with some fields changed; RecipeError as for the constructor."""
        return Recipe.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain JSON values."""
        values = dataclasses.asdict(self)
        return {**values, "freeze": list(self.freeze), "learning_rates": dict(self.learning_rates)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Build a recipe from plain values; RecipeError for unknown keys and impossible values."""
        known = [field.name for field in dataclasses.fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"the fields are {', '.join(known)}."
                raise RecipeError(f"Expected a field of a recipe, got {key!r}; {hint}")
        return cls(**values)

    @classmethod
    def read(cls, path: str | Path) -> Recipe:
        """Read a recipe from a .toml or .json file; RecipeError names the file when it cannot be."""
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            values = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
            if not isinstance(values, dict):
                raise RecipeError(f"Expected a table of fields, got {type(values).__name__}.")
            return cls.from_dict(values)
        except OSError as error:
            raise RecipeError(f"Expected a recipe file at {path}, got: {error.strerror}.") from error
        except RecursionError as error:
            raise RecipeError(f"{path}: Expected a table of fields, got one nested too deeply.") from error
        except ValueError as error:  # malformed TOML or JSON, or RecipeError
            raise RecipeError(f"{path}: {error}") from error

    def write(self, path: str | Path) -> None:
        """Write the recipe to a .toml or .json file."""
        path = Path(path)
        if path.suffix == ".toml":
            lines = [f"{key} = {_toml(value)}" for key, value in self.to_dict().items()]
            text = "\n".join(lines) + "\n"  # TOML wants one more character escaped than JSON
            path.write_text(text.replace("\x7f", "\\u007f"), encoding="utf-8")
        else:
            path.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_INF = float("inf")
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, _INF),
    "batch_size": (1, _INF),
    "learning_rate": (0, 1e6),
    "warmup_epochs": (0, _INF),
    "momentum": (0, 1),
    "weight_decay": (0, _INF),
    "plateau_patience": (1, _INF),
    "plateau_divisor": (1, _INF),
    "minimum_learning_rate": (0, _INF),
    "convergence_patience": (1, _INF),
    "target_accuracy": (0, _INF),
    "noise": (0, _INF),
    "crop": (0, 1024),
    "label_smoothing": (0, 1),
    "held_out": (0, _INF),
}


def _toml(value: Any) -> str:
    """A value as TOML, which is JSON but for tables."""
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {_toml(v)}" for key, v in value.items()) + "}"


def _images_or_share(value: Any) -> int | float:
    if not isinstance(value, float):
        return _checked("held_out", value, int)
    if 0 < value < 1:
        return value
    if value == 0:
        return 0
    raise RecipeError(f"Expected held_out to be a whole number of images or a share below 1, got {value!r}.")


def _patterns(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
        raise RecipeError(f'Expected freeze to be a list of patterns such as ["conv1", "layer1.*"], got {value!r}.')
    return tuple(value)


def _factors(value: Any) -> tuple[tuple[str, float], ...]:
    pairs = tuple(value.items() if isinstance(value, Mapping) else value) if isinstance(value, _TABLES) else None
    if pairs is None or not all(isinstance(p, list | tuple) and len(p) == 2 and isinstance(p[0], str) for p in pairs):
        raise RecipeError(f'Expected learning_rates to be a table such as {{"head": 10.0}}, got {value!r}.')
    factors = tuple((pattern, _checked(f"the factor of {pattern!r}", factor, float)) for pattern, factor in pairs)
    patterns = [pattern for pattern, _ in factors]
    for pattern, factor in factors:
        if factor <= 0:
            raise RecipeError(f"Expected a positive factor for {pattern!r}, got {factor:g}; do put it into freeze.")
        if patterns.count(pattern) > 1:
            raise RecipeError(f"Expected each pattern of learning_rates once, got {pattern!r} again; do keep one.")
    return factors


_TABLES = (Mapping, list, tuple)
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "held_out": _images_or_share,
    "freeze": _patterns,
    "learning_rates": _factors,
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
