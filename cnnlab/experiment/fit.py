"""Train by name, and go on with what was interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from flax import nnx

from cnnlab.data import Dataset, load_dataset
from cnnlab.report import write_report
from cnnlab.training import Callback, Recipe, RunFolder, get_recipe

from .load import seed_folders
from .plan import ModelSource, Plan
from .run import Runs


def fit(
    model: ModelSource,
    data: str | Dataset = "digits?size=32",
    recipe: str | Path | Recipe = "thesis",
    *,
    out: str | Path | None = None,
    seed: int = 0,
    seeds: Iterable[int] | None = None,
    model_options: dict[str, Any] | None = None,
    data_dir: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    overwrite: bool = False,
) -> Any:
    """Train a network and measure it; with `out`, leave a run folder with everything in it.

    Args:
        model: a registered name; or a network with its initial weights (not changed); or a function from
            `nnx.Rngs` to a network.
        data: a data set or its name (`cnnlab.load_dataset`).
        recipe: a recipe, its name, or a .toml / .json file.
        out: the run folder to make; None keeps everything in memory.
        seed: of initial weights, noise and order.
        seeds: several, trained one after the other with one compilation; each gets `out/seed-N`.
        model_options: options of a registered model. `num_classes`, `in_channels` and `image_size` come from
            the data unless given.
        data_dir: where to look for the data.
        callbacks: listeners (`cnnlab.training.Callback`).
        progress: tell the progress on standard output.
        overwrite: replace a run that lies in `out`.

    Returns:
        `Run`, or `Runs` when `seeds` is given.

    Raises:
        ValueError: unknown names or impossible values, each with what to do.
        cnnlab.training.TrainingDiverged: a parameter or loss is not finite.
        cnnlab.training.RunFolderError: `out` holds a run already.
    """
    recipe = get_recipe(recipe)
    several = seeds is not None
    chosen = [int(s) for s in seeds] if seeds is not None else [int(seed)]
    if not chosen:
        raise ValueError("Expected at least one seed, got none; do pass e.g. seeds=range(5).")
    if several and isinstance(model, nnx.Module):
        raise ValueError(
            "Expected a name or a function of nnx.Rngs to train several seeds, got a network; do pass a function."
        )
    dataset_name = data if isinstance(data, str) else None
    dataset = load_dataset(data, data_dir) if isinstance(data, str) else data
    plan = Plan(model, model_options or {}, dataset, dataset_name, data_dir, recipe)
    parent = None
    if out is not None:
        parent = RunFolder.create(out, overwrite=overwrite)
    folders: list[RunFolder | None] = [parent]
    if several:
        folders = [RunFolder.create(parent.path / f"seed-{s}") if parent else None for s in chosen]
    for folder, s in zip(folders, chosen, strict=True):
        if folder is not None:
            plan.write(folder, s)
    runs = plan.run_all(list(zip(chosen, folders, strict=True)), [*callbacks], progress, resume=False)
    if not several:
        return runs[0]
    return finish_seeds(Runs(tuple(runs), parent.path if parent else None))


def resume(
    folder: str | Path,
    *,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    data_dir: str | Path | None = None,
) -> Any:
    """Go on with an interrupted run, bit for bit as if it had never stopped; several seeds likewise.

    Args:
        folder: the run folder, or that of several seeds.
        callbacks: listeners.
        progress: tell the progress on standard output.
        data_dir: where to look for the data, if it has moved.

    Returns:
        `Run` or `Runs`, as `fit`.

    Raises:
        cnnlab.training.RunFolderError: no run there, or one that cannot go on (its model was an object, or the
            data have changed).
    """
    path = Path(folder)
    children = seed_folders(path)
    found = [RunFolder.open(child) for child in children] if children else [RunFolder.open(path)]
    plan, _ = Plan.read(found[0], data_dir)
    seeds = [int(f.read_json("recipe.json")["seed"]) for f in found]
    runs = plan.run_all(list(zip(seeds, found, strict=True)), [*callbacks], progress, resume=True)
    return finish_seeds(Runs(tuple(runs), path)) if children else runs[0]


def finish_seeds(runs: Runs) -> Runs:
    if runs.folder is not None:
        RunFolder(runs.folder).write_json("summary.json", runs.summary)
        write_report(runs.folder)
    return runs
