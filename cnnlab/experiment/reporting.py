"""The report of a run, with the pictures that need the network and the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from flax import nnx

from cnnlab.data import Dataset
from cnnlab.evaluation import predict
from cnnlab.layers import Conv
from cnnlab.report import Example, write_report

_MISTAKES = 24


def draw_report(path: Path, network: nnx.Module, dataset: Dataset | None) -> Path:
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
