"""Train by name, and go on with what was interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flax import nnx

from cnnlab.data import Dataset, load_dataset
from cnnlab.report import write_report
from cnnlab.training import Callback, Recipe, RunFolder, TrainingDiverged, get_recipe
from cnnlab.training.checks import expect_seed

from .load import how_diverged, seed_folders
from .plan import ModelSource, Plan
from .run import Run, Runs
from .seed_groups import Todo


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
    at_once: bool | None = None,
) -> Any:
    """Train a network and measure it; with `out`, leave a run folder with everything in it.

    Compiled programs are kept for the next start (`CNNLAB_COMPILATION_CACHE=0` in the environment: they are not).

    Args:
        model: a registered name; or a network with its initial weights (not changed; one that standardises its
            images goes on doing so, whatever the recipe says); or a function from `nnx.Rngs` to a network.
        data: a data set or its name (`cnnlab.load_dataset`).
        recipe: a recipe, its name, or a .toml / .json file.
        out: the run folder to make; None keeps everything in memory.
        seed: of initial weights, noise and order; a whole number from 0 to 2**32 - 1.
        seeds: several, with one compilation; each gets `out/seed-N`. One that diverges stops alone.
        model_options: options of a registered model. `num_classes`, `in_channels` and `image_size` come from
            the data unless given; with images below 64 pixels, `stem` and `classifier` are "cifar" unless given.
        data_dir: where to look for the data.
        callbacks: listeners (`cnnlab.training.Callback`).
        progress: tell the progress on standard output.
        overwrite: replace a run that lies in `out`.
        at_once: of several seeds: True trains all in one vectorised program, False one after the other. None: one after
            the other on CPU, where at once gains nothing (docs/performance.md); elsewhere both are tried
            for some steps and the faster is taken, with as many at once as memory allows. A seed's numbers differ by
            rounding alone: after twenty steps of small networks, in the tests, by less than 1e-4 of all parameters as
            one vector.

    Returns:
        `Run`, or `Runs` when `seeds` is given.

    Raises:
        ValueError: unknown names or impossible values, each with what to do.
        cnnlab.training.TrainingDiverged: a parameter or loss is not finite; the run folder says so. Of several seeds
            those that diverged are named, and all others have finished by then.
        cnnlab.training.RunFolderError: `out` holds a run already, or another process trains there.
    """
    recipe = get_recipe(recipe)
    several = seeds is not None
    chosen = [expect_seed(seed)] if seeds is None else _expect_seeds(seeds)
    if several and isinstance(model, nnx.Module):
        raise ValueError(
            "Expected a name or a function of nnx.Rngs to train several seeds, got a network; do pass a function."
        )
    dataset_name = data if isinstance(data, str) else None
    dataset = load_dataset(data, data_dir, progress=progress) if isinstance(data, str) else data
    plan = Plan(model, model_options or {}, dataset, dataset_name, data_dir, recipe)
    parent = None
    if out is not None:
        parent = RunFolder.create(out, overwrite=overwrite)
    folders: list[RunFolder | None] = [parent]
    if several:
        folders = [RunFolder.create(parent.path / f"seed-{s}") if parent else None for s in chosen]
    with _alone_in([parent, *folders]):
        for folder, s in zip(folders, chosen, strict=True):
            if folder is not None:
                plan.write(folder, s)
        todo = list(zip(chosen, folders, strict=True))
        runs, diverged = plan.run_all(todo, [*callbacks], progress, resume=False, at_once=at_once)
        if several:
            return finish_seeds(Runs(tuple(runs), parent.path if parent else None), diverged)
        return _only(runs, diverged)


def resume(
    folder: str | Path,
    *,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
    data_dir: str | Path | None = None,
    at_once: bool | None = None,
) -> Any:
    """Go on with an interrupted run, bit for bit as if it had never stopped; several seeds likewise.

    Each session leaves its environment in environment.json. A seed of several that has diverged stays as it is.

    Args:
        folder: the run folder, or that of several seeds.
        callbacks: listeners.
        progress: tell the progress on standard output.
        data_dir: where to look for the data, if it has moved.
        at_once: None: seeds that were trained at once go on so, bit for bit. True: at once all that stand at the same
            step; False: one after the other.

    Returns:
        `Run` or `Runs`, as `fit`.

    Raises:
        cnnlab.training.RunFolderError: no run there, or one that cannot go on (only the script can build its
            model, the data have changed, or another process trains it).
        cnnlab.training.TrainingDiverged: it has diverged, and would again.
    """
    path = Path(folder)
    children = seed_folders(path)
    found = [RunFolder.open(child) for child in children] if children else [RunFolder.open(path)]
    diverged = [how_diverged(f) for f in found]
    found = [f for f, how in zip(found, diverged, strict=True) if how is None]
    if not found:
        raise TrainingDiverged(f"Expected a run that can go on in {path}, got one that {diverged[0]}, and train again.")
    plan, _ = Plan.read(found[0], data_dir, progress=progress)
    seeds = [int(f.read_json("recipe.json")["seed"]) for f in found]
    with _alone_in(found):
        todo: Todo = list(zip(seeds, found, strict=True))
        runs, diverged = plan.run_all(todo, [*callbacks], progress, resume=True, at_once=at_once)
        return finish_seeds(Runs(tuple(runs), path), diverged) if children else _only(runs, diverged)


def _expect_seeds(seeds: Iterable[int]) -> list[int]:
    if not isinstance(seeds, Iterable):
        raise ValueError(f"Expected several seeds, got {seeds!r}; do pass e.g. seeds=range(5), or seed=.")
    chosen = [expect_seed(s) for s in seeds]
    if not chosen:
        raise ValueError("Expected at least one seed, got none; do pass e.g. seeds=range(5).")
    if repeated := {s for s in chosen if chosen.count(s) > 1}:
        raise ValueError(f"Expected every seed once, got {min(repeated)} more than once; do name it once.")
    return chosen


def _alone_in(folders: Iterable[RunFolder | None]) -> ExitStack:
    """A context in which no other process trains in any of the folders."""
    with ExitStack() as held:
        for folder in folders:
            if folder is not None:
                held.enter_context(folder.lock)
        return held.pop_all()


def _only(runs: Sequence[Run], diverged: Mapping[int, TrainingDiverged]) -> Run:
    for error in diverged.values():
        raise error
    return runs[0]


def finish_seeds(runs: Runs, diverged: Mapping[int, TrainingDiverged]) -> Runs:
    """Write the summary and the page of several seeds; when all have ended, raise TrainingDiverged if some did."""
    if runs.folder is not None:
        if len(runs):
            RunFolder(runs.folder).write_json("summary.json", runs.summary)
        write_report(runs.folder)
    if not diverged or runs.interrupted:
        return runs
    positions = {seed: error.position for seed, error in diverged.items()}
    where = [f"seed {seed} in epoch {position.epoch}" for seed, position in positions.items() if position]
    others = f"{len(runs)} of {len(runs) + len(diverged)} seeds have finished"
    if runs.folder is not None:
        others += f" and are kept in {runs.folder}"
    raise TrainingDiverged(
        f"Expected finite parameters and losses of every seed, got NaN or infinity: {', '.join(where)}; {others}; "
        "do lower learning_rate.",
        next(iter(positions.values())),
    )
