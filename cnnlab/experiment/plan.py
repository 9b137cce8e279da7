"""What all seeds of an experiment share: recipe, data, compiled steps, and how to build the network."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from cnnlab.data import Dataset, Split, load_dataset
from cnnlab.evaluation import Evaluation, evaluate
from cnnlab.training import (
    Callback,
    Outcome,
    Recipe,
    RunFolder,
    RunFolderError,
    Trainer,
    describe_environment,
)
from cnnlab.training.compilation_cache import use_compilation_cache
from cnnlab.training.progress import console_progress

from .networks import build_network, channel_statistics, labelled, standardized, with_data_options
from .reporting import draw_report
from .run import Run

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
        self.request = dataset_name
        self.data_dir = None if data_dir is None else str(Path(data_dir).expanduser().absolute())
        self._model = model
        self.model_record: dict[str, Any] = {"name": type(model).__name__, "options": None}
        if isinstance(model, str):
            self.model_record = {"name": model, "options": with_data_options(model, options, dataset)}
        elif options:
            raise ValueError("Expected model_options only with the name of a model, got them with an object.")
        self.train, self.monitor, self.monitor_name = _split(dataset, recipe)
        self.standardization = channel_statistics(self.train) if recipe.standardize else None
        self._trainer: Trainer | None = None
        # Built in the abstract before any folder is made, so that a network that cannot be leaves nothing behind.
        abstract = nnx.eval_shape(lambda: self.network(0))
        self.parameters = sum(math.prod(p.shape) for p in jax.tree.leaves(nnx.state(abstract, nnx.Param)))

    @classmethod
    def read(cls, folder: RunFolder, data_dir: str | Path | None) -> tuple[Plan, dict[str, Any]]:
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
            network = build_network(self.model_record, seed)
        elif isinstance(self._model, nnx.Module):
            network = nnx.clone(self._model)
        else:
            network = self._model(nnx.Rngs(seed))
        return standardized(network, self.standardization)

    def write(self, folder: RunFolder, seed: int) -> None:
        """Write recipe.json and environment.json of a new run."""
        data = self.dataset
        folder.write_json("environment.json", describe_environment())
        folder.write_json(
            "recipe.json",
            {
                "format": _FORMAT,
                "model": {**self.model_record, "parameters": self.parameters},
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
        use_compilation_cache()
        if self._trainer is None:
            self._trainer = Trainer(self.recipe, self.train, self.monitor, self.monitor_name)
        if progress:
            where = folder.path if folder is not None else None
            title = f"{self.model_record['name']} on {self.dataset.name}"
            callbacks = [*callbacks, console_progress(title, self.dataset.source, where)]
        going_on = resume and folder is not None and folder.last.exists()
        outcome = self._trainer.run(self.network(seed), seed=seed, folder=folder, callbacks=callbacks, resume=going_on)
        best = labelled(outcome.best, self.dataset.classes, self.dataset.image_shape)
        evaluation = None
        if not outcome.interrupted:
            evaluation = evaluate(best, self.dataset.test, classes=self.dataset.classes)
        if folder is not None:
            if evaluation is not None:
                folder.write_json("result.json", self._result(outcome, evaluation))
            draw_report(folder.path, best, self.dataset if evaluation is not None else None)
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
