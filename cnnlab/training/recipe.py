"""A recipe: everything that decides how a network is trained, as data."""

from __future__ import annotations

import dataclasses
import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_type_hints

from .recipe_checks import RecipeError as RecipeError
from .recipe_checks import checked_field, expect_ranges, expect_sense


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
        precision: "float32", or "bfloat16" for the arithmetic of the network; parameters, batch statistics, loss and
            optimiser stay float32.
        optimizer: "sgd", "adamw" or "muon" (Muon on the weights of hidden layers, SGD on all other parameters).
        learning_rate: initial ("plateau"), constant, or highest rate.
        schedule: "plateau" (`cnnlab.training.Plateau`), "constant", "step" (divided at `milestones`), "linear" or
            "cosine" (both from the highest rate to `final_rate`), or "one-cycle" (half cosines up during the warm-up
            and down).
        warmup_epochs: rise of the rate from `warmup_start`, linear but for "one-cycle"; not for "plateau". Parts of an
            epoch are rounded to whole updates.
        warmup_start: where the warm-up starts, as a share of the rate.
        final_rate: where "linear", "cosine" and "one-cycle" end, one update past the last, as a share of the rate.
        milestones: epochs after which "step" divides the rate by `step_divisor`, all of them after the warm-up and
            before the end.
        step_divisor: what a milestone divides the rate by, above 1.
        momentum: of stochastic gradient descent; the first beta of AdamW.
        nesterov: Nesterov's form of momentum, which must not be 0 then; for "sgd", and the SGD part of "muon".
        beta2: the second beta of AdamW.
        muon_learning_rate: highest rate of Muon's part; it follows the same schedule, or the plateau rule's cuts.
        muon_momentum: of Muon's part, in Nesterov's form.
        muon_steps: iterations of Newton and Schulz per update.
        muon_normalize: before each update, scale each weight of Muon's part to Frobenius norm sqrt(outputs); not for
            "plateau".
        weight_decay: "sgd": added to the gradient of weights (not of biases and norms), times the weight; "adamw" and
            "muon": decoupled, each update takes rate times it times the weight off.
        weight_decays: factors on the weight decay of groups of parameters, by patterns as in `learning_rates`, e.g.
            `{"*.bias" = 1.0, "head" = 0.0}`; where none matches, 1 for weights and 0 for biases and norms.
        clip_norm: largest norm of the whole gradient, before weight decay; longer ones are scaled down to it. 0: none.
        accumulate: batches whose mean gradient makes one update; each batch counts alike, and schedules count updates.
            A rest of fewer batches at the end of the run makes none; more than the run has are an error.
        average: "none"; "ema", an exponential moving average of the weights; or "lookahead", which also puts the
            average back into the network. The average is what is evaluated and kept.
        average_decay: share of the old average that one update of it leaves.
        average_every: updates of the network between two of the average.
        average_ramp: exponent p of a decay that grows as (share of the run that is done) ** p; 0: "ema" starts at 0.1
            and grows fast towards `average_decay`, "lookahead" is constant.
        plateau_patience: epochs without improvement before a cut.
        plateau_divisor: what a cut divides the rate by, above 1.
        minimum_learning_rate: at or below this rate there are no cuts.
        convergence_patience: epochs without improvement or cut before the run has converged.
        target_accuracy: stop when the monitored accuracy reaches it.
        target_train_accuracy: stop when the accuracy on the training images, counted as they are trained on during the
            epoch, reaches it; 2.0: never.
        noise: standard deviation of the normal noise added to training images in [0, 1].
        flip: mirror training images: "none", "random", or "alternating" (at random in the first epoch, then each image
            the other way round in every epoch).
        crop: pad training images by so many pixels and cut at random.
        crop_fill: what the padding of `crop` holds: "zero", or "reflect" for the image mirrored at its edges.
        cutout: side of a square of pixels that is set to zero, or to the mean colour of the training images with
            `standardize`.
        mixup: alpha of the beta distribution by which pairs of images and labels are blended; 0: none.
        cutmix: alpha of the beta distribution of the share of an image that another replaces; 0: none.
        pca_colour: standard deviation of the steps along the principal colours, in eigenvalues of the covariance of
            pixels in [0, 1] (0.1 in AlexNet's paper); 0: none.
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
    precision: Literal["float32", "bfloat16"] = "float32"
    optimizer: Literal["sgd", "adamw", "muon"] = "sgd"
    learning_rate: float = 0.01
    schedule: Literal["plateau", "constant", "step", "linear", "cosine", "one-cycle"] = "plateau"
    warmup_epochs: float = 0.0
    warmup_start: float = 0.0
    final_rate: float = 0.0
    milestones: Sequence[float] = ()  # kept as a tuple
    step_divisor: float = 10.0
    momentum: float = 0.9
    nesterov: bool = False
    beta2: float = 0.999
    muon_learning_rate: float = 0.02
    muon_momentum: float = 0.95
    muon_steps: int = 5
    muon_normalize: bool = False
    weight_decay: float = 0.0
    weight_decays: Mapping[str, float] | Sequence[tuple[str, float]] = ()  # kept as a tuple of pairs, to be hashable
    clip_norm: float = 0.0
    accumulate: int = 1
    average: Literal["none", "ema", "lookahead"] = "none"
    average_decay: float = 0.999
    average_every: int = 1
    average_ramp: float = 0.0
    plateau_patience: int = 5
    plateau_divisor: float = 10.0
    minimum_learning_rate: float = 1e-6
    convergence_patience: int = 10
    target_accuracy: float = 0.999
    target_train_accuracy: float = 2.0
    noise: float = 0.0
    flip: Literal["none", "random", "alternating"] = "none"  # True and False, as in older files, are random and none
    crop: int = 0
    crop_fill: Literal["zero", "reflect"] = "zero"
    cutout: int = 0
    mixup: float = 0.0
    cutmix: float = 0.0
    pca_colour: float = 0.0
    standardize: bool = False
    label_smoothing: float = 0.0
    held_out: int | float = 0
    freeze: Sequence[str] = ()  # kept as a tuple
    learning_rates: Mapping[str, float] | Sequence[tuple[str, float]] = ()  # kept as a tuple of pairs, to be hashable

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in dataclasses.fields(self):
            value = checked_field(field.name, getattr(self, field.name), hints[field.name])
            object.__setattr__(self, field.name, value)
        expect_ranges(self)
        expect_sense(self)

    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with some fields changed; RecipeError as for the constructor."""
        return Recipe.from_dict({**self.to_dict(), **changes})

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain JSON values."""
        lists = {name: list(getattr(self, name)) for name in ("milestones", "freeze")}
        tables = {name: dict(getattr(self, name)) for name in ("weight_decays", "learning_rates")}
        return {**dataclasses.asdict(self), **lists, **tables}

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


def _toml(value: Any) -> str:
    """A value as TOML, which is JSON but for tables."""
    if not isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return "{" + ", ".join(f"{json.dumps(key, ensure_ascii=False)} = {_toml(v)}" for key, v in value.items()) + "}"
