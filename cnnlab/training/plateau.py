"""The thesis' plateau rule: best accuracy, rate cuts, convergence and early exit, as a pure value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Event = Literal["cut", "converged", "target"]


@dataclass(frozen=True)
class Plateau:
    """The counters of the rule after `epoch` epochs; `update` gives those after one more.

    After each epoch, with the accuracy of that epoch:

    1. accuracy >= `target`: stop ("target").
    2. accuracy >= `best`: it is the new best and `last_improvement = epoch` (ties count).
    3. if `epoch - last_improvement >= patience` and `learning_rate > minimum`: divide the rate by
       `divisor` and **set `last_improvement = epoch`** ("cut").
    4. else if `epoch - last_improvement >= convergence_patience`: stop ("converged"). Since a cut
       restarts the counter, this happens only once the rate cannot be cut any more.

    The rate is a Python float: from 1e-2 the cuts run 1e-3, 1e-4, 1e-5, 1.0000000000000002e-06, 1.0000000000000002e-07.

    Source: the training loop of the thesis (chapter 3), after the Flux model zoo.
    """

    learning_rate: float = 1e-2
    patience: int = 5
    divisor: float = 10.0
    minimum: float = 1e-6
    convergence_patience: int = 10
    target: float = 0.999
    epoch: int = 0
    best: float = 0.0
    best_epoch: int = 0
    last_improvement: int = 0
    event: Event | None = None

    def update(self, accuracy: float) -> Plateau:
        """Return the counters after one more epoch that reached `accuracy` (0 to 1).

        `improved` of the result tells whether to save the parameters; `stopped` whether to stop.
        """
        after = replace(self, epoch=self.epoch + 1, event=None)
        if accuracy >= self.best:
            after = replace(after, best=accuracy, best_epoch=after.epoch, last_improvement=after.epoch)
        if accuracy >= self.target:
            return replace(after, event="target")
        waited = after.epoch - after.last_improvement
        if waited >= self.patience and self.learning_rate > self.minimum:
            rate = self.learning_rate / self.divisor
            return replace(after, learning_rate=rate, last_improvement=after.epoch, event="cut")
        if waited >= self.convergence_patience:
            return replace(after, event="converged")
        return after

    @property
    def improved(self) -> bool:
        """Whether the last epoch was at least as good as all before."""
        return self.epoch > 0 and self.best_epoch == self.epoch

    @property
    def stopped(self) -> bool:
        """Whether the rule says to stop."""
        return self.event in ("converged", "target")

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `Plateau(**values)` gives the same object back."""
        return asdict(self)
