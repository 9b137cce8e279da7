"""Where a run stands: what, beside the arrays, going on needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import jax.numpy as jnp

from .plateau import Plateau
from .recipe import Recipe
from .step import Metrics

_NEVER = 10**9


@dataclass
class Position:
    """The host's side of a run, plain JSON values all.

    Attributes:
        plateau: counters of the rule, best accuracy and rate.
        epoch: epochs finished.
        step: steps done of the epoch under way.
        sums: loss_sum, correct, count of the epoch under way.
        epoch_seconds: seconds spent on the epoch under way.
        compile_seconds: seconds of compilation so far.
        train_seconds: seconds of training and monitoring so far, compilation apart.
        history: one record per finished epoch.
        stop_reason: why the run ended, one sentence; None while it goes on.
        together: the seeds, lane by lane, whose networks one program trains at once, this one among them; empty for one
            that trains alone. Going on with the same lanes gives the same bits.
        seeds_at_once: how many runs, this one among them, were live in that program; they share its seconds.
    """

    plateau: Plateau
    epoch: int = 0
    step: int = 0
    sums: tuple[float, int, int] = (0.0, 0, 0)
    epoch_seconds: float = 0.0
    compile_seconds: float = 0.0
    train_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    stop_reason: str | None = None
    together: list[int] = field(default_factory=list)
    seeds_at_once: int = 1

    @classmethod
    def start(cls, recipe: Recipe) -> Position:
        """Return the position before the first step. Without "plateau" the rule only keeps the best."""
        steered = recipe.schedule == "plateau"
        return cls(
            Plateau(
                learning_rate=recipe.learning_rate,
                patience=recipe.plateau_patience if steered else _NEVER,
                divisor=recipe.plateau_divisor,
                minimum=recipe.minimum_learning_rate,
                convergence_patience=recipe.convergence_patience if steered else _NEVER,
                target=recipe.target_accuracy,
            )
        )

    @property
    def best(self) -> tuple[float | None, int | None]:
        """Accuracy and number of the best epoch; None before there is one."""
        return (self.plateau.best, self.plateau.best_epoch) if self.plateau.best_epoch else (None, None)

    def totals(self) -> Metrics:
        """Return the sums of the epoch under way as device scalars."""
        loss_sum, correct, count = self.sums
        return Metrics(jnp.float32(loss_sum), jnp.int32(correct), jnp.int32(count))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Position:
        """Undo `to_dict`."""
        loss_sum, correct, count = values["sums"]
        plateau = Plateau(**values["plateau"])
        return cls(**{**values, "plateau": plateau, "sums": (loss_sum, correct, count)})
