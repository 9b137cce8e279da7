"""Networks as an experiment needs them: built by name, standardised, knowing their classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from cnnlab import models
from cnnlab.data import Dataset, Split
from cnnlab.layers import Standardized
from cnnlab.models.registry import SMALL_IMAGES, plain
from cnnlab.training import RunFolderError
from cnnlab.training.checks import count_classes
from cnnlab.training.precision import set_precision
from cnnlab.training.state import split_model

_LABELS = ("classes", "image_shape")


def channel_statistics(train: Split) -> dict[str, list[float]]:
    """Return mean and standard deviation per channel of images in [0, 1], by exact integer sums."""
    values = train.images.reshape(-1, train.images.shape[-1])
    counts = np.stack([np.bincount(values[:, c], minlength=256) for c in range(values.shape[-1])])
    levels = np.arange(256) / 255.0
    mean = counts @ levels / len(values)
    variance = counts @ levels**2 / len(values) - mean**2
    return {"mean": mean.tolist(), "std": np.sqrt(np.maximum(variance, 1e-12)).tolist()}


def standardized(network: nnx.Module, statistics: dict[str, list[float]] | None) -> nnx.Module:
    """Put a network behind a standardisation; one that has its own stays as it is."""
    if statistics is None or isinstance(network, Standardized):
        return network
    return Standardized(network, statistics["mean"], statistics["std"])


def unwrapped(network: nnx.Module) -> tuple[nnx.Module, dict[str, list[float]] | None]:
    """Return the network behind a standardisation, and its statistics; `standardized` undoes it."""
    if not isinstance(network, Standardized):
        return network, None
    return network.network, {"mean": network.mean[...].tolist(), "std": network.std[...].tolist()}


def as_built(network: nnx.Module) -> nnx.Module:
    """Return a network in the precision of its builder, where a recipe's precision is all that has changed since."""
    name, options = getattr(network, "made_by", ("", "null"))
    record = {"name": name, "options": json.loads(options)}
    if record["options"] is None:
        return network
    built = nnx.eval_shape(lambda: build_network(record, 0))
    if _anatomy(network) != _anatomy(set_precision(built, "bfloat16")):
        return network
    network = nnx.clone(network)
    for (_, module), (_, model) in zip(nnx.iter_modules(network), nnx.iter_modules(built), strict=True):
        if hasattr(model, "dtype"):
            module.dtype = model.dtype  # pyright: ignore[reportAttributeAccessIssue]
    return network


def record_model(network: nnx.Module) -> dict[str, Any]:
    """Return name and options where building by them gives a network just alike, else the class and no options."""
    name, options = getattr(network, "made_by", ("", "null"))
    record = {"name": name, "options": json.loads(options)}
    if record["options"] is None or _anatomy(network) != _anatomy(nnx.eval_shape(lambda: build_network(record, 0))):
        return {"name": type(network).__name__, "options": None}
    return record


def _anatomy(network: nnx.Module) -> Any:
    """What two networks built alike have in common: everything but the numbers and the labels."""
    network = nnx.merge(*nnx.split(network))
    for label in _LABELS:
        if hasattr(network, label):
            delattr(network, label)
    structure, *arrays = split_model(network)
    return structure, [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(arrays)]


def expect_fitting(network: nnx.Module, dataset: Dataset) -> None:
    """Raise ValueError when a network (abstract will do) cannot take the images, or has not a logit for each class."""
    got = count_classes(network, dataset.image_shape)
    if got != dataset.num_classes:
        raise ValueError(
            f"Expected a network for the {dataset.num_classes} classes of {dataset.name}, got one with {got} outputs; "
            f"do cnnlab.replace_head(model, {dataset.num_classes})."
        )


def with_data_options(name: str, options: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Fill in what the data decide, where the model's builder has such an option; the result is plain values.

    For images with a side below `SMALL_IMAGES` pixels that is what the model declares as `small_images`, too.
    """
    height, width, channels = dataset.image_shape
    info = models.model_info(name)
    known = info.options
    facts = {"num_classes": dataset.num_classes, "in_channels": channels}
    if "image_size" in known and height != width:
        raise ValueError(f"Expected square images for {name}, got {height}x{width}; do load them with ?size=N.")
    facts["image_size"] = height
    facts = {key: value for key, value in facts.items() if key in known}
    small = info.small_images if min(height, width) < SMALL_IMAGES else {}
    return plain({**facts, **small, **options})


def build_network(record: dict[str, Any], seed: int) -> nnx.Module:
    if record["options"] is None:
        raise RunFolderError(
            f"Expected the name of a model, got a run of an object of class {record['name']}; "
            "do pass model= built like it."
        )
    return models.create_model(record["name"], rngs=nnx.Rngs(seed), **record["options"])


def labelled(network: nnx.Module, classes: Sequence[str], image_shape: Sequence[int]) -> nnx.Module:
    """Note on the network what `cnnlab.predict` needs: class names and image shape."""
    network.classes = tuple(classes)  # pyright: ignore[reportAttributeAccessIssue]
    network.image_shape = tuple(int(n) for n in image_shape)  # pyright: ignore[reportAttributeAccessIssue]
    return network
