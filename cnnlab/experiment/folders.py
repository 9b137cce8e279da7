"""A new run folder for a run that was given none."""

from __future__ import annotations

import re
from pathlib import Path


def claim_folder(model: str, dataset: str, recipe: str) -> Path:
    """Make the first free one of `runs/MODEL-DATASET-RECIPE`, `...-2`, `...-3` ...; two processes get two."""
    base, _, query = dataset.partition("?")
    kind, _, place = base.partition(":")
    parts = [
        model,
        *([Path(place).name or kind] if kind == "folder" else [base]),
        query,
        re.sub(r"\.(toml|json)$", "", Path(recipe).name),
    ]
    name = "-".join(re.sub(r"[^\w.]+", "-", part).strip("-.") for part in parts if part)
    number = 1
    while True:
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1


def give_back_folder(folder: Path) -> None:
    """Remove a claimed folder again when the run never began, that is when no file is in it."""
    if folder.is_dir() and not any(path.is_file() for path in folder.rglob("*")):
        for path in sorted(folder.rglob("*"), reverse=True):
            path.rmdir()
        folder.rmdir()
