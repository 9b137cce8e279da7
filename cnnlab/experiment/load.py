"""Read back what a run left: the network, the report."""

from __future__ import annotations

from pathlib import Path

import jax
from flax import nnx

from cnnlab.data import DatasetError
from cnnlab.report import write_report
from cnnlab.training import CheckpointError, RunFolder, RunFolderError
from cnnlab.training.loop import DIVERGED
from cnnlab.training.precision import set_precision
from cnnlab.training.state import split_model

from .networks import build_network, labelled, standardized
from .reporting import draw_report
from .requests import load_recorded


def load(folder: str | Path, *, model: nnx.Module | None = None) -> nnx.Module:
    """Return the best network of a run, in evaluation mode, with its `classes` and `image_shape`.

    Args:
        folder: the run folder (of several seeds: the first one's network).
        model: one built alike, needed only where cnnlab does not know how to build the run's network: it was given
            one that is no registered model, or was changed by hand.

    Raises:
        cnnlab.training.RunFolderError: no run there, or one whose network has no name and `model` is missing.
        cnnlab.training.CheckpointError: no readable checkpoint, or one of another network.
    """
    children = seed_folders(Path(folder))
    run = RunFolder.open(children[0] if children else folder)
    record = run.read_json("recipe.json")
    network = build_network(record["model"], 0) if model is None else model
    network = standardized(network, record["standardization"])
    network = set_precision(network, record["recipe"].get("precision", "float32"))
    structure, params, extra = split_model(network, record["recipe"].get("freeze", ()))
    if not run.best.exists():
        how = how_diverged(run)
        hint = f"; do finish the first epoch: cnnlab resume {run.path}" if how is None else f", for the run {how}."
        raise CheckpointError(f"Expected a best checkpoint in {run.best.folder}, got none{hint}")
    _, tree, _ = run.best.load({"params": params, "extra": extra})
    tree = jax.tree.map(jax.numpy.asarray, tree)
    best = structure.merge(tree["params"], tree["extra"], train=False)
    return labelled(best, record["dataset"]["classes"], record["dataset"]["image_shape"])


def seed_folders(path: Path) -> list[Path]:
    """Return the run folders of the seeds in a folder, by seed; empty when it is not such a folder."""
    found = [p for p in path.glob("seed-*") if p.name[5:].isdigit() and (p / "recipe.json").is_file()]
    return sorted(found, key=lambda p: int(p.name[5:]))


def how_diverged(run: RunFolder) -> str | None:
    """Return how a run has diverged and what to do, in the words of its result; None when it has not."""
    if not (run.path / "result.json").is_file():
        return None
    reason = str(run.read_json("result.json").get("stop_reason"))
    return reason if reason.startswith(DIVERGED) else None


def refresh_report(folder: str | Path, data_dir: str | Path | None = None) -> tuple[Path, str | None]:
    """Draw the report of a run folder again, as much of it as can be.

    Args:
        folder: the run folder, of one seed or several.
        data_dir: where the data are, if they have moved; the pictures of mistakes need them.

    Returns:
        The page, and one line about what could not be drawn and why; None when nothing is missing.
    """
    path = Path(folder)
    if seed_folders(path) or not RunFolder.open(path).best.exists():
        return write_report(path), None
    record = RunFolder.open(path).read_json("recipe.json")
    network = dataset = missing = None
    try:
        network = load(path)
        if record["dataset"]["request"] is not None:
            dataset = load_recorded(path, record, data_dir, download=False)
        else:
            missing = "the mistakes are left out: only the script knows the data"
    except (CheckpointError, DatasetError, RunFolderError, ValueError, OSError, ImportError) as error:
        left_out = "the filters and mistakes are" if network is None else "the mistakes are"
        missing = f"{left_out} left out: {' '.join(str(error).split())}"
    return write_report(path) if network is None else draw_report(path, network, dataset), missing
