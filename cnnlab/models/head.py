"""A fresh last layer for a trained network, the first step of fine-tuning."""

from __future__ import annotations

import json
from typing import Any

from flax import nnx

_NAMES = ("head", "fc")


def replace_head(model: nnx.Module, num_classes: int, *, rngs: nnx.Rngs | None = None) -> nnx.Module:
    """Return a copy of a network with a new last layer for `num_classes` classes; the given one stays as it is.

    The last layer is the `nnx.Linear` called `head` (as in every network of cnnlab) or `fc`, of the network or of the
    one inside it (`Standardized`). The new one has zero biases and normal weights of variance 1 / inputs (LeCun 1998)
    and keeps the old one's dtypes. The copy forgets the old names of the classes.

    Args:
        model: the network.
        num_classes: outputs of the new layer.
        rngs: source of its weights; `nnx.Rngs(0)` when left out.

    Raises:
        ValueError: no such layer, or fewer than one class.

    Example:
        >>> import cnnlab
        >>> model = cnnlab.replace_head(cnnlab.create_model("lenet"), 5)
        >>> model.head.out_features
        5
    """
    if num_classes < 1:
        raise ValueError(f"Expected at least one class, got {num_classes}; do pass how many there are.")
    model = nnx.clone(model)
    holders = _from_outside_in(model)
    owner = holders[-1]
    name = next((name for name in _NAMES if isinstance(getattr(owner, name, None), nnx.Linear)), None)
    if name is None:
        there = [getattr(owner, name) for name in _NAMES if hasattr(owner, name)]
        got = "none" if not there else type(there[0]).__name__ if there[0] is not None else "None (num_classes=0)"
        raise ValueError(
            f"Expected the last layer of {type(owner).__name__} to be an nnx.Linear called head or fc, got {got}; "
            "do build the network with classes, or set its last layer by hand."
        )
    old = getattr(owner, name)
    new = nnx.Linear(
        old.in_features,
        num_classes,
        use_bias=old.bias is not None,
        dtype=old.dtype,
        param_dtype=old.param_dtype,
        precision=old.precision,
        rngs=nnx.Rngs(0) if rngs is None else rngs,
    )
    setattr(owner, name, new)
    for holder in holders:
        _forget_classes(holder, num_classes)
    return model


def _from_outside_in(model: nnx.Module) -> list[Any]:
    """The network, and the ones inside it while they are wrapped in another."""
    holders: list[Any] = [model]
    while not any(hasattr(holders[-1], name) for name in _NAMES) and isinstance(
        getattr(holders[-1], "network", None), nnx.Module
    ):
        holders.append(holders[-1].network)
    return holders


def _forget_classes(holder: Any, num_classes: int) -> None:
    if hasattr(holder, "classes"):
        del holder.classes
    if hasattr(holder, "made_by"):  # what `create_model` notes
        name, options = holder.made_by
        holder.made_by = (name, json.dumps({**json.loads(options), "num_classes": int(num_classes)}))
