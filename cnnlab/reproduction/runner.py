"""Trains the rows of a study: what is not there yet, going on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import jax

from cnnlab.data import Dataset, load_dataset
from cnnlab.experiment import fit, how_diverged, resume
from cnnlab.training import RunFolder, RunFolderError, TrainingDiverged

from .results import as_plain, same_training
from .study import Row


def seed_folders_of(row: Row, out: Path) -> list[Path]:
    """Return where the runs of a row lie, by seed."""
    return [out / row.name / f"seed-{seed}" for seed in range(row.seeds)]


def train_row(
    row: Row, seeds: Sequence[int], out: Path, *, data_dir: str | Path | None = None, progress: bool = True
) -> bool:
    """Train seeds of a row, or go on with them; several at once in one program where that pays.

    Args:
        row: what to train.
        seeds: which.
        out: where the folders of the rows are.
        data_dir: where to look for the data.
        progress: tell the progress on standard output.

    Returns:
        False when somebody has interrupted it. A run that diverges is a result like another.

    Raises:
        cnnlab.training.RunFolderError: another process trains there.
        cnnlab.data.DatasetError: the data are not there.
    """
    data = row.data if isinstance(row.data, str) else row.data()
    folder = out / row.name
    if len(seeds) > 1 and not folder.exists() and jax.default_backend() != "cpu":
        return _train_together(row, data, seeds, folder, data_dir, progress)
    for seed in seeds:
        if not _train_one(row, data, seed, folder / f"seed-{seed}", data_dir, progress):
            return False
    return True


def _train_together(
    row: Row, data: str | Dataset, seeds: Sequence[int], folder: Path, data_dir: str | Path | None, progress: bool
) -> bool:
    try:
        runs = fit(
            row.model,
            data,
            row.recipe,
            out=folder,
            seeds=seeds,
            model_options=dict(row.options),
            data_dir=data_dir,
            progress=progress,
        )
    except TrainingDiverged:
        return True
    return not runs.interrupted


def _train_one(
    row: Row, data: str | Dataset, seed: int, folder: Path, data_dir: str | Path | None, progress: bool
) -> bool:
    begun = (folder / "recipe.json").is_file()
    try:
        if begun and isinstance(data, str):
            if how_diverged(RunFolder.open(folder)) is not None:
                return True
            run = resume(folder, data_dir=data_dir, progress=progress)
        else:
            run = fit(
                row.model,
                data,
                row.recipe,
                out=folder,
                seed=seed,
                model_options=dict(row.options),
                data_dir=data_dir,
                progress=progress,
                overwrite=begun,
            )
    except TrainingDiverged:
        return True
    return not run.interrupted


def prepare_data(rows: Sequence[Row], data_dir: str | Path | None, *, progress: bool) -> None:
    """Load every data set that is asked for by name once, so that what is not there is said before anything trains."""
    for name in dict.fromkeys(row.data for row in rows if isinstance(row.data, str)):
        load_dataset(name, data_dir, progress=progress)


def expect_of_the_row(row: Row, folder: Path) -> None:
    """Refuse a run of another recipe, network or data set under the name of this row; RunFolderError."""
    path = folder / "recipe.json"
    if not path.is_file():
        return
    record = json.loads(path.read_text(encoding="utf-8"))
    options = record["model"]["options"] or {}
    pairs = {
        "network": (record["model"]["name"], row.model),
        "options": ({name: options.get(name) for name in row.options}, as_plain(row.options)),
        "data set": (record["dataset"]["request"], row.data if isinstance(row.data, str) else None),
    }
    differing = [name for name, (there, wanted) in pairs.items() if there != wanted]
    if not same_training(record["recipe"], row.recipe.to_dict()):
        differing.append("recipe")
    if differing:
        raise RunFolderError(
            f"Expected a run of the row {row.name} in {folder}, got one with another {' and '.join(differing)}; "
            "do choose another --out, or remove it."
        )
