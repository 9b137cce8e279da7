"""What a run tells to whoever listens: five hooks, all optional."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class Callback:
    """Override the hooks that matter; every argument is a plain value, nothing waits for the device.

    Seeds that train one after the other are a run each. Seeds that train at once are heard as one run: `info` has all
    of them in `seeds`; the record of an epoch has their means, the number of those that go on in `training`, and the
    record of each in `seeds`.
    """

    def on_start(self, info: dict[str, Any]) -> None:
        """A run begins or goes on: `recipe`, `seed`, `parameters`, `train_images`, `epochs`, `epoch`, ..."""

    def on_compile(self, seconds: float | None) -> None:
        """Compilation begins (`seconds` is None) or has ended after so many seconds."""

    def on_steps(self, epoch: int, done: int, total: int) -> None:
        """So many of the epoch's steps are done; called about every two seconds."""

    def on_epoch(self, record: dict[str, Any]) -> None:
        """An epoch has ended well; `record` is its line of `metrics.jsonl`."""

    def on_stop(self, reason: str) -> None:
        """The run has ended, was interrupted or has diverged; `reason` is one sentence."""


class Callbacks(Callback):
    """Several callbacks as one, called in order."""

    def __init__(self, callbacks: Iterable[Callback] = ()):
        self._all = tuple(callbacks)

    def on_start(self, info: dict[str, Any]) -> None:
        """Tell all."""
        for callback in self._all:
            callback.on_start(info)

    def on_compile(self, seconds: float | None) -> None:
        """Tell all."""
        for callback in self._all:
            callback.on_compile(seconds)

    def on_steps(self, epoch: int, done: int, total: int) -> None:
        """Tell all."""
        for callback in self._all:
            callback.on_steps(epoch, done, total)

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Tell all."""
        for callback in self._all:
            callback.on_epoch(record)

    def on_stop(self, reason: str) -> None:
        """Tell all."""
        for callback in self._all:
            callback.on_stop(reason)
