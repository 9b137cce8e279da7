"""Networks as an experiment needs them: built by name, standardised, knowing their classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flax import nnx

from cnnlab import models
from cnnlab.data import Dataset, Split
from cnnlab.layers import Standardized
from cnnlab.training import RunFolderError


def channel_statistics(train: Split) -> dict[str, list[float]]:
    """Return mean and standard deviation per channel of images in [0, 1], by exact integer sums."""
    values = train.images.reshape(-1, train.images.shape[-1])
    counts = np.stack([np.bincount(values[:, c], minlength=256) for c in range(values.shape[-1])])
    levels = np.arange(256) / 255.0
    mean = counts @ levels / len(values)
    variance = counts @ levels**2 / len(values) - mean**2
    return {"mean": mean.tolist(), "std": np.sqrt(np.maximum(variance, 1e-12)).tolist()}


def standardized(network: nnx.Module, statistics: dict[str, list[float]] | None) -> nnx.Module:
    return network if statistics is None else Standardized(network, statistics["mean"], statistics["std"])


def with_data_options(name: str, options: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """Fill in what the data decide, where the model's builder has such an option."""
    height, width, channels = dataset.image_shape
    known = models.model_info(name).options
    facts = {"num_classes": dataset.num_classes, "in_channels": channels}
    if "image_size" in known and height != width:
        raise ValueError(f"Expected square images for {name}, got {height}x{width}; do load them with ?size=N.")
    facts["image_size"] = height
    return {**{key: value for key, value in facts.items() if key in known}, **options}


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
