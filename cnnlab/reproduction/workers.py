"""Several runs at a time, each in a process of its own on a core of its own: for small networks on CPUs."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.queues import Queue
from pathlib import Path

from .study import Row

Job = tuple[Row, int]


def train_in_processes(jobs: Sequence[Job], out: Path, workers: int, *, data_dir: str | Path | None = None) -> bool:
    """Train rows and seeds, so many at a time; what each has to say goes into `out/ROW/seed-N.log`.

    Two small networks on a core each are faster than one after the other on two, since few of their operations are
    large enough to be shared.

    Args:
        jobs: a row and a seed each.
        out: where the folders of the rows are.
        workers: processes at a time.
        data_dir: where to look for the data.

    Returns:
        False when one was interrupted.
    """
    context = multiprocessing.get_context("spawn")  # XLA's threads do not survive a fork
    cores: Queue[int] = context.Queue()
    for worker in range(workers):
        cores.put(worker)
    whole = True
    with ProcessPoolExecutor(workers, context, _take_a_core, (cores,)) as pool:
        endings = pool.map(_train, jobs, [out] * len(jobs), [data_dir] * len(jobs))
        for (row, seed), ending in zip(jobs, endings, strict=True):
            whole &= ending
            print(f"{row.name} seed {seed}: {'done' if ending else 'interrupted'}", flush=True)
    return whole


def _take_a_core(cores: Queue[int]) -> None:
    """Keep this process to one core, before anything has started threads."""
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {mine[cores.get() % len(mine)]})


def _train(job: Job, out: Path, data_dir: str | Path | None) -> bool:
    from .runner import train_row

    row, seed = job
    folder = out / row.name
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / f"seed-{seed}.log", "a", encoding="utf-8", buffering=1) as log:
        sys.stdout = sys.stderr = log
        try:
            return train_row(row, [seed], out, data_dir=data_dir)
        finally:
            sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
