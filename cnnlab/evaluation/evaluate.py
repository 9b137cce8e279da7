"""Evaluate a network on a set of labelled images."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cnnlab.data import Split
from cnnlab.training.inference import infer
from cnnlab.training.state import split_model
from cnnlab.training.step import cross_entropy

from .metrics import Evaluation, evaluation_from_predictions


def compute_logits(model: nnx.Module, images: np.ndarray, *, batch_size: int | None = None) -> np.ndarray:
    """Return float32 logits `[n, classes]` of a network in evaluation mode; the model keeps its mode.

    Args:
        model: maps `[batch, height, width, channels]` in [0, 1] to logits.
        images: uint8, or float in [0, 1], `[n, height, width, channels]`.
        batch_size: images per pass.
    """
    structure, params, extra = split_model(model)
    return np.asarray(infer(structure, params, extra, jnp.asarray(images), batch_size=batch_size))


def evaluate(
    model: nnx.Module, split: Split, *, classes: Sequence[str] | None = None, batch_size: int | None = None
) -> Evaluation:
    """Measure a network on a set of images; every image counts exactly once.

    Args:
        model: maps images in [0, 1] to logits.
        split: uint8 images and labels, e.g. `dataset.test`.
        classes: names of the classes; numbers when left out.
        batch_size: images per pass; it does not change the result.

    Raises:
        ValueError: the set is empty, or a label is no class of the network.
    """
    if len(split) == 0:
        raise ValueError("Expected at least one image to evaluate, got none; do pass another split.")
    logits = compute_logits(model, split.images, batch_size=batch_size)
    names = tuple(classes) if classes is not None else tuple(str(i) for i in range(logits.shape[-1]))
    if int(np.max(split.labels)) >= logits.shape[-1]:
        raise ValueError(
            f"Expected labels below {logits.shape[-1]}, the outputs of the network, got {int(np.max(split.labels))}; "
            "do create the model with more classes."
        )
    loss = float(jax.device_get(cross_entropy(jnp.asarray(logits), jnp.asarray(split.labels)).mean()))
    return evaluation_from_predictions(split.labels, logits.argmax(axis=-1), names, loss=loss)
