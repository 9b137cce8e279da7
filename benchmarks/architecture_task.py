"""What both sides of `architectures.py` share: the batch, how long a pass is, the memory of a process."""

from __future__ import annotations

import ctypes
import gc
import math
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# So small a rate keeps the loss of every fresh network finite; speed does not depend on it.
RATE, MOMENTUM = 1e-4, 0.9
SMALL = 64  # pixels; images below are small ones, of ten classes


def steps_a_call(options: dict[str, Any]) -> int:
    """How many training steps cnnlab runs in one dispatch here, where an epoch has more of them."""
    if options["device"] == "gpu":
        return 32
    return 4 if options["image_size"] < SMALL else 1  # one of larger images takes seconds


def make_batch(options: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 `[batch, side, side, 3]` and labels int32 `[batch]`, the same on both sides."""
    rng = np.random.default_rng(0)
    batch, side = options["batch_size"], options["image_size"]
    images = rng.integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    return images, rng.integers(0, options["num_classes"], batch, dtype=np.int32)


class Pass:
    """Times a number of steps together, waiting for the device once, at their end.

    The constructor makes one call to warm up and one to find how many make a pass. Where the first takes as long as
    four passes should, what it warms up is a small part of it, and one call is a pass.

    Args:
        call: does a step, or so many, and returns what there is to wait for.
        wait: waits for it.
        seconds: how long a pass should be; at least one call.
        prepare: what to do before a pass, outside its time.
        steps_a_call: how many steps a call does.

    Attributes:
        steps: of a pass.
    """

    def __init__(
        self,
        call: Callable[[], Any],
        wait: Callable[[Any], Any],
        seconds: float,
        prepare: Callable[[], Any] = lambda: None,
        steps_a_call: int = 1,
    ):
        self._call, self._wait, self._prepare = call, wait, prepare
        self._each, self._calls = steps_a_call, 1
        if self() * steps_a_call < 4 * seconds:
            self._calls = max(1, min(1000, math.ceil(seconds / (self() * steps_a_call))))
        self.steps = self._calls * steps_a_call

    def __call__(self) -> float:
        """Run a pass and return its seconds per step."""
        self._prepare()
        start, done = time.perf_counter(), None
        for _ in range(self._calls):
            done = self._call()
        self._wait(done)
        return (time.perf_counter() - start) / (self._calls * self._each)


def resident_bytes() -> int:
    """Memory of this process that is in RAM now (on Linux; elsewhere the most there ever was)."""
    return _status("VmRSS") or _most_ever()


def peak_bytes() -> int:
    """The most memory of this process that was in RAM at once, on Linux since `forget_peak`."""
    return _status("VmHWM") or _most_ever()


def forget_peak() -> None:
    """Count the peak anew from here, where the system can, after giving back what is free."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):  # not glibc
        pass
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:  # not Linux, or not allowed: the peak is that of the process' life
        pass


def _status(key: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def _most_ever() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
