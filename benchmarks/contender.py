"""A contender's end of the pipe, and the task that all contenders share."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import numpy as np

# The thesis' network (literal reading) and recipe.
PARAMETERS = 264_806
WIDTHS = (400, 400, 120, 256, 84, 10)  # flattened map, hidden layers, classes
BATCH, RATE, MOMENTUM, NOISE = 32, 0.01, 0.9, 0.1


class Channel:
    """Answers the requests of `measure.Worker`; while it waits, the process sleeps in a read.

    Make it before importing JAX or PyTorch: it binds the process to the CPUs it is given, and XLA makes
    one thread for each CPU it may use.

    Attributes:
        options: what the parent passed on the command line; `cpus` among them.
    """

    def __init__(self) -> None:
        self.options: dict[str, Any] = json.loads(sys.argv[1])
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, self.options["cpus"])
        # Answers go out by the original stdout; whatever a library prints goes to stderr.
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._idle_cpu_seconds = 0.0
        self._wait()

    def answer(self, **values: Any) -> None:
        """Answer the request at hand and return when the next one comes; exit when none will.

        Each answer tells how much CPU time the process used before it was asked: none, or it disturbed the
        others while it was idle.
        """
        self._out.write(json.dumps({**values, "idle_cpu_seconds": self._idle_cpu_seconds}) + "\n")
        self._out.flush()
        before = time.process_time()
        self._wait()
        self._idle_cpu_seconds = time.process_time() - before

    def _wait(self) -> None:
        if not sys.stdin.readline():
            sys.exit(0)


def make_data(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 `[steps * 32, 32, 32, 3]` and labels int32: ten patterns under strong noise.

    The same for every contender, and learnable, so that the loss shows that training really happens.
    """
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, steps * BATCH, dtype=np.int32)
    patterns = rng.integers(0, 128, (10, 32, 32, 3), dtype=np.uint8)
    images = rng.integers(0, 128, (steps * BATCH, 32, 32, 3), dtype=np.uint8)
    images += patterns[labels]
    return images, labels
