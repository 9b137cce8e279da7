"""From a name to trained rows, tables, figures and a verdict."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cnnlab.data import load_dataset
from cnnlab.training import RunFolderError

from .files import command, read_results, write_found
from .gather import collect, rows_of
from .page import page_of, publish
from .registry import get_study
from .results import Results
from .runner import seed_folders_of, train_row
from .study import Row, Study
from .workers import train_in_processes

Jobs = list[tuple[Row, list[int]]]


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
    docs: str | Path | None = None,
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
        seeds: train at most so many seeds of each row; with fewer than the study plans, only a shortened version is
            judged, by the most that were ever asked for.
        workers: processes at a time, each on a core of its own; for small networks on CPUs.
        data_dir: where to look for the data.
        docs: put the results into this documentation folder as well (`publish`).
        progress: tell the progress on standard output.

    Returns:
        What was found, and the folder that it was written to.

    Raises:
        ValueError: an unknown name, row or number.
        KeyboardInterrupt: interrupted; its text is the command to go on with.
        cnnlab.training.RunFolderError: a run of something else lies in `out`.
        cnnlab.data.DatasetError: the data are not there.
        cnnlab.report.ReportError: there is no such documentation.
    """
    study, nothing = get_study(name), Results(name, quick, epochs)
    _expect_possible(study, nothing, rows, seeds, workers)
    if docs is not None:
        page_of(docs)  # before anything trains
    target = Path("runs") / "reproduce" / nothing.name if out is None else Path(out)
    try:
        results = _reproduce(study, nothing, target, rows, seeds, workers, data_dir, progress)
        if docs is not None:
            publish(results, docs)
    except KeyboardInterrupt:
        typed = {"rows": rows, "seeds": seeds, "workers": workers if workers > 1 else None, "out": out}
        again = command(nothing, **typed, docs=docs, data_dir=data_dir, quiet=not progress)
        raise KeyboardInterrupt(f"interrupted; go on with:  {again}") from None
    return results, target


def _reproduce(
    study: Study,
    nothing: Results,
    out: Path,
    names: Sequence[str] | None,
    seeds: int | None,
    workers: int,
    data_dir: str | Path | None,
    progress: bool,
) -> Results:
    results, written = _known(nothing, out), None
    prepared: set[str] = set()

    def look() -> None:
        """Gather what has finished, and write it when there is more than before."""
        nonlocal results, written
        results = _gathered(study, results, out, seeds)
        if results != written:
            write_found(study, results, out)
            written = results

    look()
    while jobs := _todo(study, results, names, seeds):
        for data in dict.fromkeys(row.data for row, _ in jobs):
            if isinstance(data, str) and data not in prepared:
                load_dataset(data, data_dir, progress=progress)  # what is not there is said before anything trains
                prepared.add(data)
        if workers > 1:
            single = [(row, seed) for row, wanted in jobs for seed in wanted]
            whole = train_in_processes(single, out, workers, look, data_dir=data_dir, progress=progress)
        else:
            row, wanted = jobs[0]
            if progress:
                more = sum(len(later) for _, later in jobs) - len(wanted)
                listed = ", ".join(map(str, wanted))
                print(f"\n{row.name}: {row.what} (seeds {listed}; then {more} more runs)", flush=True)
            whole = train_row(row, wanted, out, data_dir=data_dir, progress=progress)
        look()
        if not whole:
            raise KeyboardInterrupt
    return results


def _expect_possible(
    study: Study, nothing: Results, names: Sequence[str] | None, seeds: int | None, workers: int
) -> None:
    """Raise ValueError for what cannot be asked of a study."""
    for what, value in (("epochs", nothing.epochs), ("seeds", seeds), ("workers", workers)):
        if value is not None and value < 1:
            raise ValueError(f"Expected {what} of at least 1, got {value}; do raise it.")
    if nothing.epochs is not None:
        if nothing.quick:
            raise ValueError("Expected quick or epochs, got both; do leave one of them out.")
        rows = study.rows(Results(study.name))
        if not rows:
            raise ValueError(
                f"Expected no epochs for {study.name}, which trains nothing, got {nothing.epochs}; do leave them out."
            )
        longest = max(row.recipe.epochs for row in rows)
        if nothing.epochs >= longest:
            raise ValueError(
                f"Expected epochs below the {longest} of {study.name}, got {nothing.epochs}, which shortens nothing; "
                "do leave it out."
            )


def _known(nothing: Results, out: Path) -> Results:
    """Return what an earlier call has written; what cannot be read is gathered again from the run folders."""
    try:
        known = read_results(out / "results.json") or nothing
    except RunFolderError as error:
        print(f"written anew from the run folders: {error}", file=sys.stderr)
        return nothing
    if known.name != nothing.name:
        raise RunFolderError(f"Expected results of {nothing.name} in {out}, got {known.name}; do choose another --out.")
    return known


def _gathered(study: Study, known: Results, out: Path, seeds: int | None) -> Results:
    """Collect what is finished, and measure."""
    results, rows = known, None
    while rows != (rows := rows_of(study, results)):  # later rows may depend on earlier ones
        folders = {row.name: seed_folders_of(row, out) for row in rows}
        results = collect(rows, folders, results, seeds=seeds, inspect=study.inspect)
    return replace(results, measured=study.measure(results))


def _todo(study: Study, results: Results, names: Sequence[str] | None, most: int | None) -> Jobs:
    """Return the rows that are still to be trained, with the seeds that are missing, at most so many of each row."""
    rows = rows_of(study, results)
    unknown = [name for name in names or () if name not in results.rows]
    if unknown:
        raise ValueError(
            f"Expected a row of {study.name}, got {unknown[0]!r}; the rows are {', '.join(row.name for row in rows)}."
        )
    todo = []
    for row in rows:
        seeds = results.rows[row.name].lacking(row.seeds if most is None else min(most, row.seeds))
        if seeds and (not names or row.name in names):
            todo.append((row, seeds))
    return todo
