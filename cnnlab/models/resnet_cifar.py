"""Residual networks and their plain twins for CIFAR-10 (He et al. 2015, section 4.2)."""

from __future__ import annotations

from flax import nnx
from flax.typing import Dtype

from cnnlab.layers.residual import Shortcut

from .registry import Builder
from .resnet import ResNet, register_variant

_WIDTH = 16


def _residual(name: str, blocks: int) -> Builder:
    """The network of 6n + 2 layers: n basic blocks of 16, 32 and 64 filters on 32, 16 and 8 pixels."""

    def build(
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        shortcut: Shortcut = "A",
        stochastic_depth: float = 0.0,
        squeeze_excite: bool = False,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ) -> nnx.Module:
        return ResNet(
            "basic",
            (blocks,) * 3,
            num_classes,
            width=_WIDTH,
            stem="cifar",
            in_channels=in_channels,
            shortcut=shortcut,
            stochastic_depth=stochastic_depth,
            squeeze_excite=squeeze_excite,
            dtype=dtype,
            rngs=rngs,
        )

    summary = f"Residual network for CIFAR: 3 stages of {blocks} basic blocks, 16 to 64 filters."
    return register_variant(build, name, summary, input_size=32)


def _plain(name: str, blocks: int) -> Builder:
    def build(
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        squeeze_excite: bool = False,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ) -> nnx.Module:
        return ResNet(
            "basic",
            (blocks,) * 3,
            num_classes,
            width=_WIDTH,
            stem="cifar",
            skip=False,
            in_channels=in_channels,
            squeeze_excite=squeeze_excite,
            dtype=dtype,
            rngs=rngs,
        )

    twin = name.replace("plain", "resnet")
    return register_variant(build, name, f"Plain twin of {twin}: the same without skip connections.", input_size=32)


resnet20 = _residual("resnet20", 3)
resnet32 = _residual("resnet32", 5)
resnet44 = _residual("resnet44", 7)
resnet56 = _residual("resnet56", 9)
resnet110 = _residual("resnet110", 18)
plain20 = _plain("plain20", 3)
plain32 = _plain("plain32", 5)
plain44 = _plain("plain44", 7)
plain56 = _plain("plain56", 9)
