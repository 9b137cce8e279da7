"""Several runs at a time, each in a process of its own on a core of its own: for small networks on CPUs."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

from cnnlab.training import Callback
from cnnlab.training.interrupt import StopRequest, request_stop

from .runner import train_row
from .study import Row

Job = tuple[Row, int]
_SECONDS_BETWEEN_LOOKS = 0.5


def train_in_processes(
    jobs: Sequence[Job],
    out: Path,
    workers: int,
    ended: Callable[[], object],
    *,
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> bool:
    """Train rows and seeds, so many at a time; what each has to say goes into `out/ROW/seed-N.log`.

    Two small networks on a core each are faster than one after the other on two, since few of their operations are
    large enough to be shared. After Ctrl-C or SIGTERM those under way save where they stand, and no other begins.

    Args:
        jobs: a row and a seed each.
        out: where the folders of the rows are.
        workers: processes at a time.
        ended: called whenever one has ended.
        data_dir: where to look for the data.
        progress: say on standard output which have ended.

    Returns:
        False when somebody has interrupted it.
    """
    context = multiprocessing.get_context("spawn")  # XLA's threads do not survive a fork
    cores, stop = context.Queue(), context.Event()
    for worker in range(workers):
        cores.put(worker)
    waiting, running, whole = deque(jobs), {}, True
    with ProcessPoolExecutor(workers, context, _begin, (cores, stop)) as pool, StopRequest() as request:
        try:
            while running or (waiting and not request.requested):
                while waiting and len(running) < workers and not request.requested:
                    row, seed = waiting.popleft()
                    running[pool.submit(_train, row, seed, out, data_dir)] = f"{row.name} seed {seed}"
                done, _ = wait(running, _SECONDS_BETWEEN_LOOKS, FIRST_COMPLETED)
                if request.requested:
                    stop.set()
                for future in done:
                    finished = _ending(future, request)
                    whole &= finished
                    ended()
                    what = running.pop(future)
                    if progress:
                        print(f"{what}: {'done' if finished else 'interrupted'}", flush=True)
        finally:
            stop.set()  # an error does not wait for the others to end, either
    return whole and not waiting


def _ending(future: Future[bool], request: StopRequest) -> bool:
    """Whether a job has ended by itself; one whose process a signal has ended has not."""
    try:
        return future.result()
    except BrokenProcessPool:
        if request.requested:
            return False
        raise


class _Listener(Callback):
    """Lets the run under way in this process stop when all are to stop."""

    def __init__(self, stop: Event):
        self.stop = stop

    def on_steps(self, epoch: int, done: int, total: int) -> None:
        if self.stop.is_set():
            request_stop()


_listener: _Listener | None = None  # of a process that trains


def _begin(cores: Queue[int], stop: Event) -> None:
    """Keep this process to one core, before anything has started threads, and leave Ctrl-C to the one that began it."""
    global _listener
    _listener = _Listener(stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {mine[cores.get() % len(mine)]})


def _train(row: Row, seed: int, out: Path, data_dir: str | Path | None) -> bool:
    if _listener is None or _listener.stop.is_set():
        return False
    folder = out / row.name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"seed-{seed}.log", "a", encoding="utf-8", buffering=1) as log:
        sys.stdout = sys.stderr = log
        try:
            return train_row(row, [seed], out, data_dir=data_dir, callbacks=[_listener])
        finally:
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
