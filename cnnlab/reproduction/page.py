"""Gathers what the studies found in the documentation: files under `results/` and `figures/`, tables in one page."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from cnnlab.report import ReportError
from cnnlab.report.marked import replace_marked

from .cells import duration
from .files import command, read_results, write_found
from .gather import rows_of, with_known
from .registry import get_study, list_studies
from .results import Results, RowResults, device_of, revision, seconds_of
from .study import Row, Study, Table

_PAGE = "reproduction.md"


def page_of(docs: str | Path) -> Path:
    """Return the page in a documentation folder; ReportError when it is not there."""
    page = Path(docs) / _PAGE
    if not page.is_file():
        raise ReportError(f"Expected the page {_PAGE} in {docs}, got none; do name the documentation's folder.")
    return page


def publish(results: Results, docs: str | Path) -> Path:
    """Put the results of a study into the documentation and write its page anew; what is there of other runs stays.

    Args:
        results: what `reproduce` found.
        docs: the folder with `reproduction.md`; gets `results/NAME.json`, `results/NAME.csv` and
            `figures/NAME-FIGURE.png`.

    Returns:
        The page.

    Raises:
        cnnlab.report.ReportError: there is no such page, or it lacks a marker.
        cnnlab.training.RunFolderError: the results that are there cannot be read.
    """
    study, figures = get_study(results.study), page_of(docs).parent / "figures"
    figures.mkdir(exist_ok=True)
    known = read_results(Path(docs) / "results" / f"{results.name}.json")
    if known is not None:
        rows = None
        while rows != (rows := rows_of(study, results)):  # later rows may depend on earlier ones
            results = with_known(rows, results, known)
        results = replace(results, measured=study.measure(results))
    write_found(study, _planned(study, results), Path(docs) / "results", results.name, figures)
    return write_page(docs)


def write_page(docs: str | Path) -> Path:
    """Write every table of the page from the JSON files beside it; the prose stays as it is.

    Args:
        docs: the folder with `reproduction.md`, in which `<!-- overview: begin -->` and, for each study,
            `<!-- NAME: begin -->` and their ends mark what is written here.

    Returns:
        The page.

    Raises:
        cnnlab.report.ReportError: a marker is missing.
    """
    docs, page, lines = Path(docs), page_of(docs), []
    for study in list_studies():
        versions = _versions(study, docs)
        replace_marked(page, study.name, "\n\n".join(_section(study, versions, docs)))
        lines += _overview(study, versions)
    replace_marked(page, "overview", markdown((("claim", "full", "shortened", "quick", "command"), lines)))
    return page


def markdown(table: Table) -> str:
    """Return a table in Markdown."""
    head, lines = table
    rows = [[cell.replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def made_with(results: Results) -> str:
    """Return one line: how many runs, on what, with which versions, how long."""
    runs = [run for row in results.rows.values() for run in row.runs]
    if not runs:
        return ""
    hardware = _distinct(map(device_of, runs))
    versions = _distinct(f"jax {run['environment'].get('jax')}, flax {run['environment'].get('flax')}" for run in runs)
    seconds = [seconds_of(run) for run in runs]
    revisions = _distinct(revision(run)[:7] + revision(run)[40:] for run in runs)
    spent = f"{duration(sum(seconds))} of training in all (median {duration(statistics.median(seconds))} a run)"
    return f"{len(runs)} runs, {spent}; {hardware}; {versions}; revision {revisions}."


def _versions(study: Study, docs: Path) -> list[Results]:
    """Return what is published of a study: in full, shortened to so many epochs, quick."""
    found = [read_results(path) for path in sorted((docs / "results").glob(f"{study.name}*.json"))]
    mine = [_planned(study, results) for results in found if results is not None and results.study == study.name]
    return sorted(mine, key=lambda results: (results.quick, results.epochs or 0, results.name))


def _planned(study: Study, results: Results) -> Results:
    """The results with every row planned as the study plans it now, since that decides what may be judged."""
    rows = {row.name: row for row in rows_of(study, results)}
    found = dict(results.rows)
    for name in found.keys() & rows.keys():
        found[name] = replace(found[name], planned_seeds=rows[name].seeds, seen_seeds=rows[name].seen)
    return replace(results, rows=found)


def _section(study: Study, versions: list[Results], docs: Path) -> list[str]:
    texts = []
    if not any(_is_full(results) and not _missing(study, results) for results in versions):
        texts.append(f"**Not run in full**: `{command(Results(study.name))}` ({study.full_time}).")
    for results in versions:
        how = command(results, seeds=results.asked_seeds)
        texts += [f"**{_title(study, results)}** `{how}`", markdown(study.table(results))]
        texts.append("\n".join(
            f"- *{verdict.claim}* {verdict.outcome.capitalize()}"
            f"{': ' + verdict.measured if verdict.measured else ''}. {verdict.judged_by}."
            for verdict in study.verdicts(results)
        ))  # fmt: skip
        name = results.name
        files = [f"[{name}.json](results/{name}.json)", f"[{name}.csv](results/{name}.csv)"]
        texts.append(" ".join([made_with(results), "Every run:", f"{', '.join(files)}."]).strip())
        for figure, caption in study.figures.items():
            if (docs / "figures" / f"{name}-{figure}.png").is_file():
                texts.append(f"![{caption}](figures/{name}-{figure}.png)")
    return texts


def _title(study: Study, results: Results) -> str:
    title, wanted = "In full", _wanted(study, results)
    if results.quick:
        title = f"The quick version: {study.shortened}"
    elif results.epochs is not None:
        title = _shortened(results.epochs, [row.recipe.epochs for row in study.rows(results)], [*wanted.values()])
        title += f" ({study.caveat})" if study.caveat else ""
    if not (missing := _missing(study, results)):
        return f"{title}."
    title = "In part" if _is_full(results) else title
    listed = ", ".join(f"{count} of {name}" for name, count in missing.items())
    return f"{title}: {sum(wanted.values()) - sum(missing.values())} of {sum(wanted.values())} runs; missing: {listed}."


def _wanted(study: Study, results: Results) -> dict[str, int]:
    """How many runs of each row the version has when it is whole: those planned, shortened those asked for or there."""
    rows, missing = [_row_of(results, row) for row in rows_of(study, results)], _missing(study, results)
    return {row.row: len(row.runs) + missing.get(row.row, 0) for row in rows}


def _missing(study: Study, results: Results) -> dict[str, int]:
    """How many of the runs that it takes to judge are not there, by row."""
    rows = {row.name: _row_of(results, row) for row in rows_of(study, results)}
    missing = {name: len(row.lacking(results.judged_seeds(row))) for name, row in rows.items()}
    return {name: count for name, count in missing.items() if count}


def _row_of(results: Results, row: Row) -> RowResults:
    """What was found of a row; nothing, where it is not there."""
    return results.rows.get(row.name) or RowResults.planned(row, results.asked_seeds)


def _shortened(epochs: int, whole: Sequence[int], seeds: Sequence[int]) -> str:
    """Write `Shortened to 4 of 164 epochs, 2 seeds a row`, of rows with these whole schedules and seeds."""
    longest = f"{'up to ' * (min(whole) < max(whole))}{max(whole)}"
    several = f"{min(seeds)} to {max(seeds)}" if min(seeds) < max(seeds) else f"{max(seeds)}"
    return f"Shortened to {epochs} of {longest} epochs, {several} seed{'s' * (max(seeds) > 1)} a row"


def _overview(study: Study, versions: list[Results]) -> list[list[str]]:
    """A line per claim, with its outcome in each version; a dash for a version that is not there and trains nothing."""
    full = next((results for results in versions if _is_full(results)), Results(study.name))
    short = next((results for results in reversed(versions) if results.epochs is not None), None)  # the longest
    quick = next((results for results in versions if results.quick), None)
    columns = [
        {} if results is None else {verdict.claim: verdict.outcome for verdict in study.verdicts(results)}
        for results in (full, short, quick)
    ]
    claims = dict.fromkeys(claim for column in columns for claim in column)
    how, missing = f"`reproduce {study.name}`", "not run" if study.rows(Results(study.name)) else "-"
    return [[claim, *(column.get(claim, missing) for column in columns), how] for claim in claims]


def _is_full(results: Results) -> bool:
    return not results.quick and results.epochs is None


def _distinct(values: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(values))
