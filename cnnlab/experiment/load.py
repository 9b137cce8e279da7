"""Read back what a run left: the network, the report."""

from __future__ import annotations

from pathlib import Path

import jax
from flax import nnx

from cnnlab.data import load_dataset
from cnnlab.report import write_report
from cnnlab.training import CheckpointError, RunFolder
from cnnlab.training.state import split_model

from .networks import build_network, labelled, standardized
from .reporting import draw_report


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
    network = build_network(record["model"], 0) if model is None else model
    network = standardized(network, record["standardization"])
    structure, params, extra = split_model(network)
    if not run.best.exists():
        raise CheckpointError(
            f"Expected a best checkpoint in {run.best.folder}, got none; do finish the first epoch: "
            f"cnnlab resume {run.path}"
        )
    _, tree, _ = run.best.load({"params": params, "extra": extra})
    tree = jax.tree.map(jax.numpy.asarray, tree)
    best = structure.merge(tree["params"], tree["extra"], train=False)
    return labelled(best, record["dataset"]["classes"], record["dataset"]["image_shape"])


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
    return draw_report(path, network, dataset)
