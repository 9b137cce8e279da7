"""Writes what a study found: JSON, CSV, figures."""

from __future__ import annotations

from pathlib import Path

from cnnlab.report import save_figure

from .results import Results, write_csv, write_results
from .study import Study


def write_found(
    study: Study, results: Results, out: Path, stem: str | None = None, figures: Path | None = None
) -> None:
    """Write JSON, CSV and figures.

    Args:
        study: the study.
        results: what it found; nothing is written when that is nothing.
        out: folder of the JSON and CSV file.
        stem: what they are called; by default "results".
        figures: folder of the figures, called `STEM-FIGURE.png`; by default `out`, and `FIGURE.png`.
    """
    if results.empty:
        return
    out.mkdir(parents=True, exist_ok=True)
    write_results(results, study, out / f"{stem or 'results'}.json")
    write_csv(results, study, out / f"{stem or 'results'}.csv")
    for figure, drawn in study.draw(results).items():
        save_figure(drawn, (figures or out) / f"{stem + '-' if stem else ''}{figure}.png")
