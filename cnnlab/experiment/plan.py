"""What all seeds of an experiment share: recipe, data, compiled steps, and how to build the network."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from cnnlab.data import Dataset, Split
from cnnlab.evaluation import Evaluation, evaluate
from cnnlab.report import write_report
from cnnlab.training import (
    Callback,
    Outcome,
    Position,
    Recipe,
    RunFolder,
    RunFolderError,
    Trainer,
    TrainingDiverged,
    describe_environment,
)
from cnnlab.training.compilation_cache import use_compilation_cache
from cnnlab.training.environment import what_differs
from cnnlab.training.groups import expect_groups
from cnnlab.training.precision import set_precision
from cnnlab.training.progress import console_progress

from .networks import (
    as_built,
    build_network,
    channel_statistics,
    expect_fitting,
    labelled,
    record_model,
    standardized,
    unwrapped,
    with_data_options,
)
from .preparation import prepared
from .reporting import draw_report
from .requests import absolute_request, load_recorded
from .run import Run
from .seed_groups import SeedGroup, Todo, group_seeds, measured_width

ModelSource = str | nnx.Module | Callable[[nnx.Rngs], nnx.Module]
_FORMAT = 1


class Plan:
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
        self.request = absolute_request(dataset_name, data_dir)
        self.data_dir = None if data_dir is None else str(Path(data_dir).expanduser().absolute())
        if options and not isinstance(model, str):
            raise ValueError("Expected model_options only with the name of a model, got them with an object.")
        self.train, self.monitor, self.monitor_name = _split(dataset, recipe)
        self.standardization = channel_statistics(self.train) if recipe.standardize else None
        self.model_record: dict[str, Any] = {"name": type(model).__name__, "options": None}
        self._has_weights = isinstance(model, nnx.Module)
        if isinstance(model, str):
            self.model_record = {"name": model, "options": with_data_options(model, options, dataset)}
        elif isinstance(model, nnx.Module):
            model, statistics = unwrapped(model)
            model = as_built(model)
            self.standardization = statistics or self.standardization  # it goes on with what it was trained with
            self.model_record = record_model(model)
        self._model = model
        self._trainer: Trainer | None = None
        # Tried in the abstract before any folder is made, so that what cannot be leaves nothing behind.
        abstract = nnx.eval_shape(lambda: self.network(0))
        self.parameters = sum(math.prod(p.shape) for p in jax.tree.leaves(nnx.state(abstract, nnx.Param)))
        expect_groups(abstract, recipe)
        expect_fitting(abstract, dataset)

    @classmethod
    def read(
        cls, folder: RunFolder, data_dir: str | Path | None, *, progress: bool = True
    ) -> tuple[Plan, dict[str, Any]]:
        """Rebuild the plan of a run folder."""
        record = folder.read_json("recipe.json")
        if record["model"]["options"] is None or record["dataset"]["request"] is None:
            raise RunFolderError(
                f"Expected a run of a named model on a named data set in {folder.path}, got objects that only the "
                "script knows; do run the script again."
            )
        where = data_dir if data_dir is not None else record["dataset"]["data_dir"]
        request = record["dataset"]["request"]
        dataset = load_recorded(folder.path, record, data_dir, progress=progress)
        recipe = Recipe.from_dict(record["recipe"])
        plan = cls(record["model"]["name"], record["model"]["options"], dataset, request, where, recipe)
        plan.standardization = record["standardization"]
        plan._has_weights = record["model"].get("has_weights", False)
        return plan, record

    def network(self, seed: int) -> nnx.Module:
        """Build the network with the initial weights of a seed, in the recipe's precision."""
        new = not isinstance(self._model, nnx.Module)
        if isinstance(self._model, str):
            network = build_network(self.model_record, seed)
        elif isinstance(self._model, nnx.Module):
            network = nnx.clone(self._model)
        else:
            network = self._model(nnx.Rngs(seed))
        network = standardized(network, self.standardization)
        return set_precision(prepared(network, self.train.images) if new else network, self.recipe.precision)

    def write(self, folder: RunFolder, seed: int) -> None:
        """Write recipe.json, which makes the folder a run's, and environment.json of a new run."""
        data = self.dataset
        folder.write_json(
            "recipe.json",
            {
                "format": _FORMAT,
                "model": {**self.model_record, "parameters": self.parameters, "has_weights": self._has_weights},
                "dataset": {
                    "name": data.name,
                    "request": self.request,
                    "data_dir": self.data_dir,
                    "source": data.source,
                    "fingerprint": data.fingerprint,
                    "train_images": len(self.train),
                    "held_out_images": len(self.monitor) if self.recipe.held_out else 0,
                    "test_images": len(data.test),
                    "image_shape": list(data.image_shape),
                    "classes": list(data.classes),
                },
                "standardization": self.standardization,
                "seed": seed,
                "recipe": self.recipe.to_dict(),
            },
        )
        folder.write_json("environment.json", describe_environment())

    def run_all(
        self,
        todo: Todo,
        callbacks: list[Callback],
        progress: bool,
        *,
        resume: bool,
        at_once: bool | None = None,
    ) -> tuple[list[Run], dict[int, TrainingDiverged]]:
        """Train the seeds, at once or one after the other (`group_seeds`); an interruption ends it.

        Returns:
            The runs, in the order of `todo`; and how those diverged that did.
        """
        use_compilation_cache()
        if self._trainer is None:
            self._trainer = Trainer(self.recipe, self.train, self.monitor, self.monitor_name)
        trainer = self._trainer

        def width(seeds: Sequence[int]) -> int:
            return measured_width(trainer, self.network(seeds[0]), seeds, progress=progress)

        runs: dict[int, Run] = {}
        diverged: dict[int, TrainingDiverged] = {}
        for group in group_seeds(todo, resume=resume, at_once=at_once, width=width):
            if resume:
                self._note_sessions(group, progress)
            for (seed, folder), ending in zip(group.todo, self._run(trainer, group, callbacks, progress), strict=True):
                if isinstance(ending, TrainingDiverged):
                    diverged[seed] = ending
                    self._finish_diverged(folder, ending)
                else:
                    runs[seed] = self._finish(seed, folder, ending)
            if any(run.interrupted for run in runs.values()):
                break
        return [runs[seed] for seed, _ in todo if seed in runs], diverged

    def _note_sessions(self, group: SeedGroup, progress: bool) -> None:
        for number, (_, folder) in enumerate(group.todo):
            if folder is None:
                continue
            if self._has_weights and not group.resume:
                raise RunFolderError(
                    f"Expected a checkpoint to go on from in {folder}, got none, and the weights that the run began "
                    "with are not in it; do run the script again."
                )
            if not (folder.path / "result.json").is_file():
                note_session(folder, progress and number == 0)

    def _run(
        self, trainer: Trainer, group: SeedGroup, callbacks: list[Callback], progress: bool
    ) -> list[Outcome | TrainingDiverged]:
        if progress:
            folder = group.todo[0][1]
            where = None if folder is None else folder.path.parent if len(group.lanes) > 1 else folder.path
            title = f"{self.model_record['name']} on {self.dataset.name}"
            callbacks = [*callbacks, console_progress(title, self.dataset.source, where)]
        starts = [(self.network(seed), seed, folder) for seed, folder in group.todo]
        return trainer.run_at_once(starts, lanes=group.lanes, callbacks=callbacks, resume=group.resume)

    def _finish_diverged(self, folder: RunFolder | None, error: TrainingDiverged) -> None:
        if folder is not None and error.position is not None:
            folder.write_json("result.json", self._result(error.position, None))
            write_report(folder.path)

    def _finish(self, seed: int, folder: RunFolder | None, outcome: Outcome) -> Run:
        """Measure the best network, unless the run was interrupted, and complete its folder."""
        best = labelled(outcome.best, self.dataset.classes, self.dataset.image_shape)
        evaluation = None
        if not outcome.interrupted:
            evaluation = evaluate(best, self.dataset.test, classes=self.dataset.classes)
        if folder is not None:
            if evaluation is not None:
                folder.write_json("result.json", self._result(outcome.position, evaluation))
            draw_report(folder.path, best, self.dataset if evaluation is not None else None)
        position = outcome.position
        where = folder.path if folder is not None else None
        return Run(best, outcome.last, position.history, evaluation, seed, position.stop_reason, where)

    def _result(self, position: Position, evaluation: Evaluation | None) -> dict[str, Any]:
        accuracy, epoch = position.best
        return {
            "stop_reason": position.stop_reason,
            "epochs": position.epoch,
            "best_epoch": epoch,
            "best_accuracy": accuracy,
            "compile_seconds": position.compile_seconds,
            "train_seconds": position.train_seconds,
            "seeds_at_once": position.seeds_at_once,
            "protocol": "held-out" if self.recipe.held_out else "thesis",
            "evaluation": evaluation.to_dict("test") if evaluation is not None else None,
        }


def note_session(folder: RunFolder, progress: bool) -> None:
    """Append this process to environment.json; with `progress` say what may keep the run from being bit for bit."""
    known = folder.read_json("environment.json") if (folder.path / "environment.json").exists() else {}
    earlier, now = known.get("resumed", []), describe_environment()
    folder.write_json("environment.json", {**known, "resumed": [*earlier, now]})
    differences = what_differs([known, *earlier], now)
    if differences and progress:
        print(f"not bit for bit from here on: {', '.join(differences)}", flush=True)


def _split(dataset: Dataset, recipe: Recipe) -> tuple[Split, Split, str]:
    """Return training images, the images that steer, and the latters' name."""
    if recipe.held_out == 0:
        return dataset.train, dataset.test, "test"
    count = recipe.held_out if recipe.held_out >= 1 else max(round(recipe.held_out * len(dataset.train)), 1)
    rest, held_out = dataset.hold_out(int(count))
    return rest, held_out, "validation"
