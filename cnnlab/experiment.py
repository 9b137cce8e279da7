"""Whole experiments by name: fit, resume, load. The room on top of all others but the command line."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from cnnlab import models
from cnnlab.data import Dataset, Split, load_dataset
from cnnlab.evaluation import Evaluation, evaluate, predict
from cnnlab.layers import Conv, Standardized
from cnnlab.report import Example, write_report
from cnnlab.training import (
    Callback,
    CheckpointError,
    Outcome,
    Recipe,
    RunFolder,
    RunFolderError,
    Trainer,
    TrainState,
    describe_environment,
    get_recipe,
)
from cnnlab.training.progress import console_progress
from cnnlab.training.state import split_model

ModelSource = str | nnx.Module | Callable[[nnx.Rngs], nnx.Module]
_FORMAT = 1
_MISTAKES = 24


@dataclass(frozen=True)
class Run:
    """A trained network and what happened.

    Attributes:
        best: the network of the best epoch, in evaluation mode; it knows its `classes` and `image_shape`.
        last: the state after the last step.
        history: one record per epoch, as in `metrics.jsonl`.
        evaluation: of `best` on the test images; None when the run was interrupted.
        seed: of initial weights, noise and order.
        stop_reason: one sentence; None when the run was interrupted.
        folder: the run folder, or None.
    """

    best: nnx.Module
    last: TrainState
    history: list[dict[str, Any]]
    evaluation: Evaluation | None
    seed: int
    stop_reason: str | None
    folder: Path | None

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked the run to stop before its end."""
        return self.stop_reason is None


@dataclass(frozen=True)
class Runs(Sequence[Run]):
    """The runs of several seeds, in order; `summary` has mean and standard deviation."""

    runs: tuple[Run, ...]
    folder: Path | None

    def __getitem__(self, index):  # noqa: ANN001, ANN204 (as a tuple)
        return self.runs[index]

    def __len__(self) -> int:
        return len(self.runs)

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked one of the runs to stop before its end."""
        return any(run.interrupted for run in self.runs)

    @property
    def summary(self) -> dict[str, Any]:
        """Plain JSON values: every seed's row, and n, mean and standard deviation (n - 1) of the accuracy."""
        rows = [_summary_row(run) for run in self.runs if run.evaluation is not None]
        values = [row["accuracy"] for row in rows]
        return {
            "seeds": [run.seed for run in self.runs],
            "rows": rows,
            "accuracy": {
                "n": len(values),
                "mean": statistics.fmean(values) if values else None,
                "std": statistics.stdev(values) if len(values) > 1 else None,
            },
        }


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
    plan = _Plan(model, model_options or {}, dataset, dataset_name, data_dir, recipe)
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
    return _finish_seeds(Runs(tuple(runs), parent.path if parent else None))


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
    plan, _ = _Plan.read(found[0], data_dir)
    seeds = [int(f.read_json("recipe.json")["seed"]) for f in found]
    runs = plan.run_all(list(zip(seeds, found, strict=True)), [*callbacks], progress, resume=True)
    return _finish_seeds(Runs(tuple(runs), path)) if children else runs[0]


def load(folder: str | Path, *, model: nnx.Module | None = None) -> nnx.Module:
    """Return the best network of a run, in evaluation mode, with its `classes` and `image_shape`.

    Args:
        folder: the run folder (of several seeds: the first one's network).
        model: needed only where the run was given a network and not a name: one built alike.

    Raises:
        cnnlab.training.RunFolderError: no run there, or one whose network has no name and `model` is missing.
        cnnlab.training.CheckpointError: no readable checkpoint, or one of another network.
    """
    children = seed_folders(Path(folder))
    run = RunFolder.open(children[0] if children else folder)
    record = run.read_json("recipe.json")
    network = _build(record["model"], 0) if model is None else model
    network = _standardized(network, record["standardization"])
    structure, params, extra = split_model(network)
    if not run.best.exists():
        raise CheckpointError(
            f"Expected a best checkpoint in {run.best.folder}, got none; do finish the first epoch: "
            f"cnnlab resume {run.path}"
        )
    _, tree, _ = run.best.load({"params": params, "extra": extra})
    tree = jax.tree.map(jax.numpy.asarray, tree)
    best = structure.merge(tree["params"], tree["extra"], train=False)
    return _labelled(best, record["dataset"]["classes"], record["dataset"]["image_shape"])


def seed_folders(path: Path) -> list[Path]:
    """Return the run folders of the seeds in a folder, by seed; empty when it is not such a folder."""
    found = [p for p in path.glob("seed-*") if p.name[5:].isdigit() and (p / "recipe.json").is_file()]
    return sorted(found, key=lambda p: int(p.name[5:]))


def refresh_report(folder: str | Path) -> Path:
    """Draw the report of a run folder again (the data must be at hand for the pictures of mistakes)."""
    path = Path(folder)
    if seed_folders(path) or not RunFolder.open(path).best.exists():
        return write_report(path)
    run = RunFolder.open(path)
    record = run.read_json("recipe.json")
    network = load(path) if record["model"]["options"] is not None else None
    if network is None or record["dataset"]["request"] is None:
        return write_report(path)
    dataset = load_dataset(record["dataset"]["request"], record["dataset"]["data_dir"], download=False)
    return _draw_report(path, network, dataset)


class _Plan:
    """What all seeds of an experiment share: recipe, data, compiled steps, and how to build the network."""

    def __init__(
        self,
        model: ModelSource,
        options: dict[str, Any],
        dataset: Dataset,
        dataset_name: str | None,
        data_dir: str | Path | None,
        recipe: Recipe,
    ):
        self.recipe, self.dataset = recipe, dataset
        self.request, self.data_dir = dataset_name, str(data_dir) if data_dir is not None else None
        self._model = model
        self.model_record: dict[str, Any] = {"name": type(model).__name__, "options": None}
        if isinstance(model, str):
            self.model_record = {"name": model, "options": _with_data_options(model, options, dataset)}
        elif options:
            raise ValueError("Expected model_options only with the name of a model, got them with an object.")
        self.train, self.monitor, self.monitor_name = _split(dataset, recipe)
        self.standardization = _statistics(self.train) if recipe.standardize else None
        self._trainer: Trainer | None = None

    @classmethod
    def read(cls, folder: RunFolder, data_dir: str | Path | None) -> tuple[_Plan, dict[str, Any]]:
        """Rebuild the plan of a run folder."""
        record = folder.read_json("recipe.json")
        if record["model"]["options"] is None or record["dataset"]["request"] is None:
            raise RunFolderError(
                f"Expected a run of a named model on a named data set in {folder.path}, got objects that only the "
                "script knows; do run the script again."
            )
        where = data_dir if data_dir is not None else record["dataset"]["data_dir"]
        request = record["dataset"]["request"]
        dataset = load_dataset(request, where)
        if dataset.fingerprint != record["dataset"]["fingerprint"]:
            raise RunFolderError(
                f"Expected the data {folder.path} was trained on, got other images or labels from {dataset.source}; "
                "do give their place with --data-dir."
            )
        recipe = Recipe.from_dict(record["recipe"])
        return cls(record["model"]["name"], record["model"]["options"], dataset, request, where, recipe), record

    def network(self, seed: int) -> nnx.Module:
        """Build the network with the initial weights of a seed."""
        if isinstance(self._model, str):
            network = _build(self.model_record, seed)
        elif isinstance(self._model, nnx.Module):
            network = nnx.clone(self._model)
        else:
            network = self._model(nnx.Rngs(seed))
        return _standardized(network, self.standardization)

    def write(self, folder: RunFolder, seed: int) -> None:
        """Write recipe.json and environment.json of a new run."""
        data, network = self.dataset, self.network(seed)
        parameters = sum(int(p.size) for p in jax.tree.leaves(nnx.state(network, nnx.Param)))
        folder.write_json("environment.json", describe_environment())
        folder.write_json(
            "recipe.json",
            {
                "format": _FORMAT,
                "model": {**self.model_record, "parameters": parameters},
                "dataset": {
                    "name": data.name,
                    "request": self.request,
                    "data_dir": self.data_dir,
                    "source": data.source,
                    "fingerprint": data.fingerprint,
                    "train_images": len(self.train),
                    "held_out_images": self.recipe.held_out,
                    "test_images": len(data.test),
                    "image_shape": list(data.image_shape),
                    "classes": list(data.classes),
                },
                "standardization": self.standardization,
                "seed": seed,
                "recipe": self.recipe.to_dict(),
            },
        )

    def run_all(
        self,
        todo: list[tuple[int, RunFolder | None]],
        callbacks: list[Callback],
        progress: bool,
        *,
        resume: bool,
    ) -> list[Run]:
        """Train the seeds one after the other; an interruption ends the list."""
        runs = []
        for seed, folder in todo:
            runs.append(self._run(seed, folder, callbacks, progress, resume))
            if runs[-1].interrupted:
                break
        return runs

    def _run(self, seed: int, folder: RunFolder | None, callbacks: list[Callback], progress: bool, resume: bool) -> Run:
        if self._trainer is None:
            self._trainer = Trainer(self.recipe, self.train, self.monitor, self.monitor_name)
        if progress:
            where = folder.path if folder is not None else None
            title = f"{self.model_record['name']} on {self.dataset.name}"
            callbacks = [*callbacks, console_progress(title, self.dataset.source, where)]
        going_on = resume and folder is not None and folder.last.exists()
        outcome = self._trainer.run(self.network(seed), seed=seed, folder=folder, callbacks=callbacks, resume=going_on)
        best = _labelled(outcome.best, self.dataset.classes, self.dataset.image_shape)
        evaluation = None
        if not outcome.interrupted:
            evaluation = evaluate(best, self.dataset.test, classes=self.dataset.classes)
        if folder is not None:
            if evaluation is not None:
                folder.write_json("result.json", self._result(outcome, evaluation))
            _draw_report(folder.path, best, self.dataset if evaluation is not None else None)
        position = outcome.position
        where = folder.path if folder is not None else None
        return Run(best, outcome.last, position.history, evaluation, seed, position.stop_reason, where)

    def _result(self, outcome: Outcome, evaluation: Evaluation) -> dict[str, Any]:
        position = outcome.position
        return {
            "stop_reason": position.stop_reason,
            "epochs": position.epoch,
            "best_epoch": position.plateau.best_epoch,
            "best_accuracy": position.plateau.best,
            "compile_seconds": position.compile_seconds,
            "train_seconds": position.train_seconds,
            "protocol": "held-out" if self.recipe.held_out else "thesis",
            "evaluation": evaluation.to_dict("test"),
        }


def _split(dataset: Dataset, recipe: Recipe) -> tuple[Split, Split, str]:
    """Return training images, the images that steer, and the latters' name."""
    if recipe.held_out == 0:
        return dataset.train, dataset.test, "test"
    rest, held_out = dataset.hold_out(recipe.held_out)
    return rest, held_out, "validation"


def _statistics(train: Split) -> dict[str, list[float]]:
    """Return mean and standard deviation per channel of images in [0, 1], by exact integer sums."""
    values = train.images.reshape(-1, train.images.shape[-1])
    counts = np.stack([np.bincount(values[:, c], minlength=256) for c in range(values.shape[-1])])
    levels = np.arange(256) / 255.0
    mean = counts @ levels / len(values)
    variance = counts @ levels**2 / len(values) - mean**2
    return {"mean": mean.tolist(), "std": np.sqrt(np.maximum(variance, 1e-12)).tolist()}


def _standardized(network: nnx.Module, statistics: dict[str, list[float]] | None) -> nnx.Module:
    return network if statistics is None else Standardized(network, statistics["mean"], statistics["std"])


def _with_data_options(name: str, options: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Fill in what the data decide, where the model's builder has such an option."""
    height, width, channels = dataset.image_shape
    known = models.model_info(name).options
    facts = {"num_classes": dataset.num_classes, "in_channels": channels}
    if "image_size" in known and height != width:
        raise ValueError(f"Expected square images for {name}, got {height}x{width}; do load them with ?size=N.")
    facts["image_size"] = height
    return {**{key: value for key, value in facts.items() if key in known}, **options}


def _build(record: dict[str, Any], seed: int) -> nnx.Module:
    if record["options"] is None:
        raise RunFolderError(
            f"Expected the name of a model, got a run of an object of class {record['name']}; "
            "do pass model= built like it."
        )
    return models.create_model(record["name"], rngs=nnx.Rngs(seed), **record["options"])


def _labelled(network: nnx.Module, classes: Sequence[str], image_shape: Sequence[int]) -> nnx.Module:
    """Note on the network what `cnnlab.predict` needs: class names and image shape."""
    network.classes = tuple(classes)  # pyright: ignore[reportAttributeAccessIssue]
    network.image_shape = tuple(int(n) for n in image_shape)  # pyright: ignore[reportAttributeAccessIssue]
    return network


def _draw_report(path: Path, network: nnx.Module, dataset: Dataset | None) -> Path:
    convolutions = [m for _, m in nnx.iter_graph(network) if isinstance(m, Conv)]
    first = min(convolutions, key=lambda m: m.in_features, default=None)
    filters = np.asarray(first.kernel[...]) if first is not None else None
    return write_report(path, filters=filters, mistakes=_mistakes(network, dataset) if dataset else None)


def _mistakes(network: nnx.Module, dataset: Dataset) -> list[Example]:
    """Return the test images that the network gets wrong with most confidence."""
    predictions = predict(network, np.asarray(dataset.test.images), classes=dataset.classes, top_k=1)
    truths = [dataset.classes[label] for label in dataset.test.labels]
    wrong = [i for i, p in enumerate(predictions) if p.label != truths[i]]
    wrong.sort(key=lambda i: -predictions[i].probabilities[0])
    return [
        Example(
            np.asarray(dataset.test.images[i]),
            truths[i],
            predictions[i].label,
            predictions[i].probabilities[0],
        )
        for i in wrong[:_MISTAKES]
    ]


def _summary_row(run: Run) -> dict[str, Any]:
    last = run.history[-1]
    return {
        "seed": run.seed,
        "accuracy": run.evaluation.accuracy if run.evaluation else None,
        "best_accuracy": last["best_accuracy"],
        "best_epoch": last["best_epoch"],
        "epochs": last["epoch"],
        "stop_reason": run.stop_reason,
    }


def _finish_seeds(runs: Runs) -> Runs:
    if runs.folder is not None:
        RunFolder(runs.folder).write_json("summary.json", runs.summary)
        write_report(runs.folder)
    return runs
