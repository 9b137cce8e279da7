"""Writes the report of a folder: figures, tables, page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .confusion import plot_confusion_matrix
from .curves import plot_learning_curves
from .examples import Example, plot_examples
from .filters import plot_filters
from .folder import RunRecord, read_folder
from .page import render_page
from .per_class import plot_per_class
from .story import Story, tell_run, tell_seeds
from .style import save_figure
from .tables import write_confusion_csv, write_per_class_csv


def write_report(
    folder: str | Path, *, filters: np.ndarray | None = None, mistakes: Sequence[Example] | None = None
) -> Path:
    """Turns a run folder, finished or not, or the parent folder of several seeds into a report.

    It writes `figures/*.png`, `per_class.csv` and `confusion_matrix.csv` (once a run has finished) and
    `report.html`, one file with everything in it. The same folder gives the same bytes.

    Args:
        folder: what `cnnlab train --out` wrote.
        filters: kernel of the first convolution, `[height, width, channels in, channels out]`.
        mistakes: misclassified images, best first.

    Returns:
        Path of `report.html`.

    Raises:
        ReportError: the folder is no run folder or a file in it is damaged; one line that names the file.
        ValueError: `filters` or `mistakes` have the wrong shape.
    """
    record = read_folder(Path(folder))
    story = tell_run(record) if isinstance(record, RunRecord) else tell_seeds(record)
    figures = _draw(story, filters, mistakes)
    _write_tables(story)
    page = story.folder / "report.html"
    draft = page.with_suffix(".html.part")  # a reader never sees half a page
    draft.write_text(render_page(story, figures), encoding="utf-8", errors="xmlcharrefreplace")
    os.replace(draft, page)
    return page


def _draw(story: Story, filters: np.ndarray | None, mistakes: Sequence[Example] | None) -> dict[str, Path]:
    evaluation = story.evaluation or {}
    figures = {}
    if story.histories:
        figures["learning_curves"] = plot_learning_curves(story.histories)
    if evaluation.get("confusion_matrix"):
        names = [str(name) for name in evaluation["classes"]]
        figures["confusion_matrix"] = plot_confusion_matrix(evaluation["confusion_matrix"], names)
    if evaluation.get("per_class"):
        figures["per_class"] = plot_per_class(evaluation["per_class"])
    if filters is not None:
        figures["filters"] = plot_filters(filters)
    if mistakes:
        figures["mistakes"] = plot_examples(mistakes)
    folder = story.folder / "figures"
    folder.mkdir(exist_ok=True)
    return {name: save_figure(figure, folder / f"{name}.png") for name, figure in figures.items()}


def _write_tables(story: Story) -> None:
    evaluation = story.evaluation or {}
    if evaluation.get("per_class"):
        write_per_class_csv(story.folder / "per_class.csv", evaluation["per_class"])
    if evaluation.get("confusion_matrix"):
        names = [str(name) for name in evaluation["classes"]]
        write_confusion_csv(story.folder / "confusion_matrix.csv", evaluation["confusion_matrix"], names)
