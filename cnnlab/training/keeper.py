"""Keeps what must not be lost: the best parameters, the last state, the metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .position import Position
from .run_folder import RunFolder
from .state import TrainState

# Saving may cost one part in so many of the time of training.
_SHARE_OF_TIME = 20


class SaveTimes:
    """Often enough to lose little when the process is killed, seldom enough to cost at most a twentieth of the time.

    Always at the end and when interrupted, besides.
    """

    def __init__(self) -> None:
        self._next = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time."""
        return time.monotonic() >= self._next

    @contextmanager
    def saving(self) -> Iterator[None]:
        """A context to save in; what it costs decides when the next time comes."""
        start = time.monotonic()
        yield
        self._next = time.monotonic() + _SHARE_OF_TIME * (time.monotonic() - start)


class Keeper:
    """The best parameters in memory and, with a folder, best and last on disk.

    `SaveTimes` says when to save. Since a run is a pure function of its state, whatever a kill undoes is done again,
    bit for bit, on resuming.

    Args:
        folder: the run folder, or None to keep everything in memory.
        initial: `(params, extra)` to start from.
    """

    def __init__(self, folder: RunFolder | None, initial: tuple[Any, Any]):
        self.folder = folder
        self.best = _copy(initial)
        self._best_is_saved = True
        self._best_meta: dict[str, Any] = {}

    def keep_best(self, state: TrainState, position: Position) -> None:
        """Remember the parameters of the epoch that has just become the best."""
        self.best = _copy(state.evaluated)
        self._best_meta = {"epoch": position.plateau.best_epoch, "accuracy": position.plateau.best}
        self._best_is_saved = False

    def start(self) -> None:
        """Drop the metrics of a run that was killed before its first checkpoint."""
        if self.folder is not None:
            self.folder.truncate_metrics(0)

    def record(self, record: dict[str, Any]) -> None:
        """Append an epoch to the folder's metrics."""
        if self.folder is not None:
            self.folder.append_metrics(record)

    def save(self, state: TrainState, position: Position, *, wait: bool = False) -> None:
        """Write best (if new) and then last; `wait` until that is done."""
        if self.folder is None:
            return
        self.save_best()
        self.folder.last.save(int(state.step), state, position.to_dict())
        if wait:
            self.folder.last.wait()

    def save_best(self) -> None:
        """Write the best parameters and wait, if they are new."""
        if self.folder is None or self._best_is_saved:
            return
        params, extra = self.best
        self.folder.best.save(int(self._best_meta["epoch"]), {"params": params, "extra": extra}, self._best_meta)
        self.folder.best.wait()
        self._best_is_saved = True

    def restore(self, like: TrainState) -> tuple[TrainState, Position]:
        """Read the last state, its position and the best parameters; metrics after it are dropped."""
        if self.folder is None:
            raise ValueError("Expected a run folder to resume from, got none; do pass folder=.")
        _, state, meta = self.folder.last.load(like)
        position = Position.from_dict(meta)
        if position.plateau.best_epoch:
            params, extra = self.best
            _, best, self._best_meta = self.folder.best.load({"params": params, "extra": extra})
            self.best = (best["params"], best["extra"])
        self.folder.truncate_metrics(position.epoch)
        return jax.tree.map(jnp.asarray, state), position

    def close(self) -> None:
        """Wait for what is still being written."""
        if self.folder is not None:
            self.folder.best.close()
            self.folder.last.close()


def _copy(tree: Any) -> Any:
    """Copy arrays to the host, for steps donate theirs; typed random keys are copied on the device."""

    def copy(x: Any) -> Any:
        return jnp.copy(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.array(x)

    return jax.tree.map(copy, tree)
