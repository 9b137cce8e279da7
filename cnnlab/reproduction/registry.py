"""The studies by name; each is imported when it is first asked for."""

from __future__ import annotations

import difflib
from importlib import import_module

from .study import Study

_HOMES = {
    "thesis": "thesis.Thesis",
    "figure3": "figure3.Figure3",
    "figure6": "figure6.Figure6",
    "figure8": "figure8.Figure8",
    "resnet-cifar": "resnet_cifar.ResNetCifar",
    "figure10": "figure10.Figure10",
    "alexnet": "alexnet.AlexNetStudy",
    "architectures": "architectures.Architectures",
}


def list_studies() -> list[Study]:
    """Return the studies, in the order of the documentation."""
    return [get_study(name) for name in _HOMES]


def get_study(name: str) -> Study:
    """Return the study of that name; ValueError otherwise."""
    if name not in _HOMES:
        near = difflib.get_close_matches(name, _HOMES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(_HOMES)}."
        raise ValueError(f"Expected the name of a reproduction, got {name!r}; {hint}")
    module, _, kind = _HOMES[name].partition(".")
    return getattr(import_module(f"{__package__}.{module}"), kind)()
