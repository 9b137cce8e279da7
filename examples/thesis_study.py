"""Examine the thesis' 65 %: both readings of the network, the honest protocol, one named change at a time.

    python examples/thesis_study.py                      # all rows, two processes; goes on where it stopped
    python examples/thesis_study.py --rows literal flatten --workers 1
    python examples/thesis_study.py --gather             # only write table and figures from what is there

Time: 39 runs of 8 to 32 minutes each, on one core of a busy machine (docs/results/thesis.json has every run's seconds).
Writes: a run folder per row and seed in runs/thesis-study, then docs/results/thesis.json and its figures.
Expect: 59 to 62 % at the best epoch of each reading, not 65 %; near 65 % with twice the filters. See
docs/reproduction.md.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from thesis_results import gather

import cnnlab

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Row:
    """One line of the study: what differs from the literal reading of the thesis."""

    name: str
    what: str
    seeds: int = 3
    recipe: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    base: str = "thesis"


FLATTEN = {"hidden": [120, 256, 84]}
ROWS = (
    Row("literal", "four hidden layers 400-120-256-84, the thesis' recipe to the letter", seeds=5),
    Row("flatten", "400 read as the flattened map: hidden layers 120-256-84", seeds=5, model=FLATTEN),
    Row("no-noise", "without the noise on training images", recipe={"noise": 0.0}),
    Row("literal-held-out", "literal, steered by 5,000 training images", seeds=5, base="thesis-held-out"),
    Row("shuffled", "new random batches every epoch", recipe={"order": "shuffled"}),
    Row("modern", "the same network, trained as one would today", base="lenet-modern"),
    Row("permuted", "fixed batches in another order", recipe={"order": "permuted"}),
    Row(
        "lecun-normal",
        "initial weights LeCun normal instead of Glorot uniform",
        model={"init": "lecun_normal"},
    ),
    Row("softmax-twice", "softmax in the network and again in the loss", model={"softmax_output": True}),
    Row("filters-12-32", "12 and 32 filters instead of 6 and 16", model={"filters": [12, 32]}),
    Row("flatten-held-out", "flatten, steered by 5,000 training images", model=FLATTEN, base="thesis-held-out"),
)


def train(row: Row, seed: int, folder: Path) -> None:
    """Train one row with one seed, or go on with it; runs in a process of its own."""
    if (folder / "recipe.json").exists():
        cnnlab.resume(folder)
    else:
        recipe = cnnlab.get_recipe(row.base).replace(**row.recipe)
        cnnlab.fit("lenet", "cifar10", recipe, model_options=row.model, seed=seed, out=folder)


def run_all(rows: list[Row], out: Path, workers: int, most_seeds: int) -> None:
    """Train what is not finished yet, each run in a process of its own on a core of its own."""
    cores: SimpleQueue[int] = SimpleQueue()
    for core in range(workers):
        cores.put(core)

    def start(job: tuple[Row, int]) -> None:
        row, seed = job
        folder = out / row.name / f"seed-{seed}"
        if (folder / "result.json").exists():
            return
        core = cores.get()
        try:
            command = [sys.executable, __file__, "--one", row.name, str(seed), "--out", str(out)]
            environment = {**os.environ, "CNNLAB_STUDY_CORE": str(core)}
            folder.parent.mkdir(parents=True, exist_ok=True)
            with open(folder.parent / f"seed-{seed}.log", "a") as log:
                code = subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode
            print(
                f"{row.name} seed {seed}: {'done' if code == 0 else f'exit code {code}, see {log.name}'}",
                flush=True,
            )
        finally:
            cores.put(core)

    jobs = [(row, seed) for row in rows for seed in range(min(row.seeds, most_seeds))]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(start, jobs))


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", choices=[row.name for row in ROWS], default=[row.name for row in ROWS])
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "thesis-study")
    parser.add_argument("--workers", type=int, default=2, help="processes at a time, one core each")
    parser.add_argument("--seeds", type=int, default=5, help="at most so many seeds of each row")
    parser.add_argument("--gather", action="store_true", help="only write the results of finished runs")
    parser.add_argument("--one", nargs=2, metavar=("ROW", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    rows = {row.name: row for row in ROWS}
    if args.one:
        core = os.environ.get("CNNLAB_STUDY_CORE")
        if core is not None and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, {int(core) % (os.cpu_count() or 1)})
        train(rows[args.one[0]], int(args.one[1]), args.out / args.one[0] / f"seed-{args.one[1]}")
        return
    if not args.gather:
        try:
            cnnlab.load_dataset("cifar10")  # so that it is prepared once, and its absence is said once
        except cnnlab.DatasetError as error:
            sys.exit(str(error))
        run_all([rows[name] for name in args.rows], args.out, args.workers, args.seeds)
    gather(ROWS, args.out)


if __name__ == "__main__":
    main()
