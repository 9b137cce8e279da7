"""Residual networks and their plain twins for CIFAR-10 (He et al. 2015, section 4.2)."""

from __future__ import annotations

from typing import Any

from .registry import Builder
from .resnet import register_variant

_COMMON: dict[str, Any] = dict(input_size=32, module=__name__, width=16, stem="cifar")


def _residual(name: str, blocks: int) -> Builder:
    """The network of 6n + 2 layers: n basic blocks of 16, 32 and 64 filters on 32, 16 and 8 pixels."""
    options = ("shortcut", "stochastic_depth", "squeeze_excite")
    summary = f"Residual network for CIFAR: 3 stages of {blocks} basic blocks, 16 to 64 filters."
    return register_variant(name, summary, "basic", (blocks,) * 3, options, shortcut="A", **_COMMON)


def _plain(name: str, blocks: int) -> Builder:
    summary = f"Plain twin of {name.replace('plain', 'resnet')}: the same without skip connections."
    return register_variant(name, summary, "basic", (blocks,) * 3, ("squeeze_excite",), skip=False, **_COMMON)


resnet20 = _residual("resnet20", 3)
resnet32 = _residual("resnet32", 5)
resnet44 = _residual("resnet44", 7)
resnet56 = _residual("resnet56", 9)
resnet110 = _residual("resnet110", 18)
plain20 = _plain("plain20", 3)
plain32 = _plain("plain32", 5)
plain44 = _plain("plain44", 7)
plain56 = _plain("plain56", 9)
