"""From a name to trained rows, tables, figures and a verdict."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from cnnlab.training import RunFolderError

from .registry import get_study
from .results import Results, collect, command, read_results
from .runner import expect_of_the_row, prepare_data, seed_folders_of, train_row
from .study import Row, Study
from .workers import train_in_processes
from .write import write_found


def reproduce(
    name: str,
    out: str | Path | None = None,
    *,
    quick: bool = False,
    epochs: int | None = None,
    rows: Sequence[str] | None = None,
    seeds: int | None = None,
    workers: int = 1,
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> tuple[Results, Path]:
    """Reproduce a table or figure of a paper; goes on where an earlier call stopped.

    Args:
        name: one of `cnnlab.reproduction.list_studies()`.
        out: gets a run folder per row and seed, `results.json`, `results.csv` and the figures; by default
            `runs/reproduce/NAME`, `runs/reproduce/NAME-quick` and so on.
        quick: the small version, minutes on two cores.
        epochs: shorten the schedules to so many, in their shape; for what would take too long.
        rows: train these alone; what is there of others is shown all the same.
        seeds: at most so many seeds of each row.
        workers: processes at a time, each on a core of its own; for small networks on CPUs.
        data_dir: where to look for the data.
        progress: tell the progress on standard output.

    Returns:
        What was found, and the folder that it was written to.

    Raises:
        ValueError: an unknown name, row or number.
        KeyboardInterrupt: interrupted; its text is the command to go on with.
        cnnlab.training.RunFolderError: a run of another recipe lies in `out`.
        cnnlab.data.DatasetError: the data are not there.
    """
    study = get_study(name)
    for what, value in (("epochs", epochs), ("seeds", seeds), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"Expected {what} of at least 1, got {value}; do raise it.")
    nothing = Results(name, quick, epochs)
    target = Path("runs") / "reproduce" / nothing.name if out is None else Path(out)
    with ExitStack() as at_the_end:
        results = _so_far(study, nothing, target)
        at_the_end.callback(lambda: write_found(study, results, target))
        prepared: set[str] = set()
        while jobs := _todo(study, results, rows, seeds):
            new = [row for row, _ in jobs if row.name not in prepared]
            prepare_data(new, data_dir, progress=progress)
            prepared.update(row.name for row in new)
            if workers > 1:
                single = [(row, seed) for row, wanted in jobs for seed in wanted]
                whole = train_in_processes(single, target, workers, data_dir=data_dir)
            else:
                row, wanted = jobs[0]
                if progress:
                    more = sum(len(later) for _, later in jobs) - len(wanted)
                    print(f"\n{row.name}: {row.what} (seeds {_listed(wanted)}; then {more} more runs)", flush=True)
                whole = train_row(row, wanted, target, data_dir=data_dir, progress=progress)
            results = _so_far(study, nothing, target)
            if not whole:
                where = "" if out is None else f" --out {shlex.quote(str(out))}"
                raise KeyboardInterrupt(f"interrupted; go on with:  {command(results)}{where}")
            write_found(study, results, target)
    return results, target


def _so_far(study: Study, nothing: Results, out: Path) -> Results:
    """Collect what is finished, and measure."""
    known = read_results(out / "results.json") or nothing
    if known.name != nothing.name:
        raise RunFolderError(f"Expected results of {nothing.name} in {out}, got {known.name}; do choose another --out.")
    rows = _rows(study, known)
    while True:  # later rows may depend on earlier ones
        folders = {row.name: seed_folders_of(row, out) for row in rows}
        for row in rows:
            for folder in folders[row.name]:
                expect_of_the_row(row, folder)
        results = collect(rows, folders, known)
        again = _rows(study, results)
        if again == rows:
            break
        rows = again
    there = {name: [path for path in paths if (path / "result.json").is_file()] for name, paths in folders.items()}
    return replace(results, measured={**results.measured, **study.measure(results, there)})


def _rows(study: Study, results: Results) -> list[Row]:
    rows = study.rows(results)
    return [row if results.epochs is None else row.in_epochs(results.epochs) for row in rows]


def _todo(
    study: Study, results: Results, names: Sequence[str] | None, most_seeds: int | None
) -> list[tuple[Row, list[int]]]:
    """Return the rows that are still to be trained, with the seeds that are missing."""
    rows = _rows(study, results)
    unknown = [name for name in names or () if name not in [row.name for row in rows]]
    if unknown:
        raise ValueError(
            f"Expected a row of {study.name}, got {unknown[0]!r}; the rows are {', '.join(row.name for row in rows)}."
        )
    todo = []
    for row in rows:
        if names is not None and row.name not in names:
            continue
        found = [run["seed"] for run in results.rows[row.name].runs]
        seeds = [seed for seed in range(min(row.seeds, most_seeds or row.seeds)) if seed not in found]
        if seeds:
            todo.append((row, seeds))
    return todo


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
