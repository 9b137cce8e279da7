"""Trains the rows of a study: what is not there yet, going on where it stopped."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from cnnlab.data import load_dataset
from cnnlab.experiment.plan import Plan
from cnnlab.training import Callback, RunFolder

from .gather import expect_of_the_row
from .study import Row


def seed_folders_of(row: Row, out: Path) -> list[Path]:
    """Return where the runs of a row lie, by seed."""
    return [out / row.name / f"seed-{seed}" for seed in range(row.seeds)]


def train_row(
    row: Row,
    seeds: Sequence[int],
    out: Path,
    *,
    data_dir: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> bool:
    """Train seeds of a row, each to its end; several at once in one program where that pays.

    Those with a checkpoint go on from it, and those that trained at once go on so; the others begin.

    Args:
        row: what to train.
        seeds: which, none of them finished.
        out: where the folders of the rows are.
        data_dir: where to look for the data.
        callbacks: listeners.
        progress: tell the progress on standard output.

    Returns:
        False when somebody has interrupted it. A run that diverges is a result like another.

    Raises:
        cnnlab.training.RunFolderError: another process trains there, or what lies there is of another row.
        cnnlab.data.DatasetError: the data are not there.
    """
    name = row.data if isinstance(row.data, str) else None
    dataset = row.data() if callable(row.data) else load_dataset(row.data, data_dir, progress=progress)
    folders = seed_folders_of(row, out)
    for path in folders:
        if (path / "recipe.json").is_file():
            expect_of_the_row(row, path, dataset)
    plan = Plan(row.model, dict(row.options), dataset, name, data_dir, row.recipe)
    begun, new = [], []
    with ExitStack() as held:
        for seed in seeds:
            folder = RunFolder(folders[seed])
            if goes_on := folder.last.exists():
                held.enter_context(folder.lock)
            else:
                folder = RunFolder.create(folders[seed], overwrite=True)
                held.enter_context(folder.lock)
                plan.write(folder, seed)
            (begun if goes_on else new).append((seed, folder))
        for todo, resume in ((begun, True), (new, False)):
            runs, _ = plan.run_all(todo, [*callbacks], progress, resume=resume)
            if any(run.interrupted for run in runs):
                return False
    return True
