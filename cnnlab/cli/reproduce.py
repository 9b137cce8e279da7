"""The command that reproduces tables and figures of papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from .output import print_table, short

_FOLDER = arg(metavar="FOLDER", help_behavior_hint="")
_NUMBER = arg(metavar="N", help_behavior_hint="")


def reproduce(
    name: Annotated[Positional[str | None], arg(metavar="NAME")] = None,
    *,
    quick: bool = False,
    epochs: Annotated[int | None, _NUMBER] = None,
    rows: Annotated[tuple[str, ...], arg(metavar="ROW [ROW ...]", help_behavior_hint="")] = (),
    seeds: Annotated[int | None, _NUMBER] = None,
    workers: Annotated[int, arg(metavar="N")] = 1,
    out: Annotated[Path | None, _FOLDER] = None,
    docs: Annotated[Path | None, _FOLDER] = None,
    data_dir: Annotated[Path | None, _FOLDER] = None,
    quiet: bool = False,
) -> int:
    """Reproduce a table or figure of a paper, and judge its claim; without a name, list what there is.

    It goes on where an earlier call has stopped.

    Args:
        name: which.
        quick: the small version, for minutes on a laptop.
        epochs: shorten every schedule to so many epochs, in its shape.
        rows: train these rows alone.
        seeds: train at most so many seeds of each row.
        workers: processes at a time, each on a core of its own; for small networks on CPUs.
        out: the folder of the runs and results; without it, one in runs/reproduce/.
        docs: put the results into this documentation folder as well.
        data_dir: where the data are.
        quiet: show no progress, only the result.
    """
    from cnnlab.reproduction import get_study, list_studies
    from cnnlab.reproduction import reproduce as run

    if name is None:
        lines = [(s.name, s.claim, f"about {s.quick_minutes:g} min", s.full_time) for s in list_studies()]
        print_table(("name", "claim", "--quick, two cores", "in full"), lines)
        return 0
    study = get_study(name)
    results, folder = run(
        name,
        out,
        quick=quick,
        epochs=epochs,
        rows=rows or None,
        seeds=seeds,
        workers=workers,
        data_dir=data_dir,
        docs=docs,
        progress=not quiet,
    )
    print(f"\n{study.title}\n")
    print_table(*study.table(results))
    for verdict in study.verdicts(results):
        print(f"\n{verdict.outcome.upper()}  {verdict.claim}")
        if verdict.measured:
            print(f"  found: {verdict.measured}")
        print(f"  {verdict.judged_by[0].lower()}{verdict.judged_by[1:]}")
    print(f"\nresults and figures: {short(folder)}")
    if docs is not None:
        print(f"published in {short(docs / 'reproduction.md')}")
    return 0
