"""Residual networks and their plain twins (He et al. 2015), the family for ImageNet."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from cnnlab.layers import BasicBlock, BatchNorm, Bottleneck, Conv, global_avg_pool, max_pool
from cnnlab.layers.residual import Shortcut, StrideIn, he_normal_fan_out

from .image_side import warn_below_imagenet
from .registry import Builder, register_model

Stem = Literal["imagenet", "cifar"]
Block = Literal["basic", "bottleneck"]

_PAPER = "He et al. 2015, 'Deep Residual Learning for Image Recognition', arXiv:1512.03385"
_SMALL_IMAGES = {"stem": "cifar"}

# Uniform in +- 1 / sqrt(fan_in), as the libraries of the field start their dense layers.
_head_init = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class ResNet(nnx.Module):
    """A stem, stages of residual blocks, the mean over all pixels and one dense layer.

    Stage i has `depths[i]` blocks of `width * 2**i` filters; the first block of every stage but the first halves
    height and width. Convolutions have no bias, start He normal (fan out) and are followed by BatchNorm, which
    starts as scale 1 and bias 0; the head starts uniform in +- 1 / sqrt(fan in), its bias zero.

    Source: K. He et al., "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385.

    Args:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1; four times as many channels out).
        depths: blocks of each stage; any number of stages.
        num_classes: outputs; 0 leaves out the last layer, so that the network returns features.
        width: filters of the stem and of the first stage.
        stem: "imagenet" is a 7x7 convolution of stride 2 and 3x3 max pooling of stride 2; "cifar" one 3x3 convolution.
        skip: whether blocks have a skip connection; False builds the plain twin.
        shortcut: "A" (identity, zeros for new channels), "B" (projection where the shape changes) or "C" (projection
            everywhere); see `cnnlab.layers.ResidualBlock`.
        stride_in: which convolution of a bottleneck has the stride: "3x3", or "1x1" as in the paper. Basic blocks have
            no such choice and refuse the second.
        stochastic_depth: probability to drop the last block's residual branch; it falls linearly to the first's.
        squeeze_excite: whether blocks weigh their channels (Hu et al. 2018).
        in_channels: channels of the images.
        dtype: computation type; None keeps that of the inputs and parameters.
        rngs: source of the initial weights and of the drops.
    """

    def __init__(
        self,
        block: Block,
        depths: Sequence[int],
        num_classes: int = 10,
        *,
        width: int = 64,
        stem: Stem = "imagenet",
        skip: bool = True,
        shortcut: Shortcut = "B",
        stride_in: StrideIn = "3x3",
        stochastic_depth: float = 0.0,
        squeeze_excite: bool = False,
        in_channels: int = 3,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        if block not in ("basic", "bottleneck"):
            raise ValueError(f"Expected block to be basic or bottleneck, got {block!r}; do choose one of the two.")
        if stem not in ("imagenet", "cifar"):
            raise ValueError(f"Expected stem to be imagenet or cifar, got {stem!r}; do choose one of the two.")
        if stride_in not in ("3x3", "1x1"):
            raise ValueError(f"Expected stride_in to be 3x3 or 1x1, got {stride_in!r}; do choose one of the two.")
        if block == "basic" and stride_in != "3x3":
            raise ValueError(f"Expected stride_in of bottleneck blocks only, got {stride_in!r}; do leave it out.")
        if not depths or min(depths) < 1:
            raise ValueError(
                f"Expected at least one block in each stage, got depths={depths!r}; do leave out the stage."
            )
        dtype = None if dtype is None else jnp.dtype(dtype)
        self.stem, self.num_stages = stem, len(depths)
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        of_conv: dict[str, Any] = dict(padding=kernel // 2, use_bias=False, kernel_init=he_normal_fan_out)
        self.conv1 = Conv(in_channels, width, kernel, stride, **of_conv, dtype=dtype, rngs=rngs)
        self.bn1 = BatchNorm(width, dtype=dtype, rngs=rngs)
        of_block: dict[str, Any] = dict(skip=skip, shortcut=shortcut, squeeze_excite=squeeze_excite)
        if block == "bottleneck":
            of_block["stride_in"] = stride_in
        build = BasicBlock if block == "basic" else Bottleneck
        channels, index = width, 0
        for stage, depth in enumerate(depths):
            blocks = nnx.List()
            for i in range(depth):
                index += 1
                blocks.append(
                    build(
                        channels,
                        width * 2**stage,
                        stride=2 if stage and not i else 1,
                        stochastic_depth=stochastic_depth * index / sum(depths),
                        dtype=dtype,
                        rngs=rngs,
                        **of_block,
                    )
                )
                channels = width * 2**stage * build.expansion
            setattr(self, f"layer{stage + 1}", blocks)
        head: dict[str, Any] = dict(kernel_init=_head_init, dtype=dtype, rngs=rngs)
        self.head = nnx.Linear(channels, num_classes, **head) if num_classes else None

    def features(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to the mean of the last stage over all pixels, `[batch, features]`.

        Warns when the ImageNet stem meets an image below 64 pixels.
        """
        if self.stem == "imagenet":
            part = "the ImageNet stem, which divides their side by 4"
            warn_below_imagenet(images, part, "build the network with stem='cifar'")
        x = nnx.relu(self.bn1(self.conv1(images)))
        if self.stem == "imagenet":
            x = max_pool(x, 3, strides=2, padding=((1, 1), (1, 1)))
        for stage in range(1, self.num_stages + 1):
            for block in getattr(self, f"layer{stage}"):
                x = block(x)  # [b, h, w, c]; each stage but the first halves h and w
        return global_avg_pool(x)  # [b, c]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        x = self.features(images)
        return x if self.head is None else self.head(x)


def register_variant(
    name: str,
    summary: str,
    block: Block,
    depths: Sequence[int],
    options: Sequence[str],
    *,
    input_size: int,
    small_images: Mapping[str, str] | None = None,
    module: str = __name__,
    **given: Any,
) -> Builder:
    """Register `ResNet(block, depths, **given)` as a builder of its own, with a few of the class' options.

    Args:
        name: of the builder.
        summary: its docstring.
        block: see `ResNet`.
        depths: see `ResNet`.
        options: what the builder takes besides `num_classes`, `in_channels`, `dtype` and `rngs`, in this order; others
            are refused.
        input_size: see `register_model`.
        small_images: see `register_model`.
        module: where the builder is defined.
        **given: arguments of `ResNet`; for one of the options, its default.
    """
    known = inspect.signature(ResNet.__init__).parameters
    taken = [known[key] for key in ("num_classes", "in_channels", *options, "dtype", "rngs")]
    taken = [p.replace(default=given[p.name]) if p.name in given else p for p in taken]
    signature = inspect.Signature(taken, return_annotation="nnx.Module")

    def build(*args: Any, **kwargs: Any) -> nnx.Module:
        bound = signature.bind(*args, **kwargs)
        return ResNet(block, depths, *bound.args, **{**given, **bound.kwargs})

    build.__name__ = build.__qualname__ = name
    build.__doc__, build.__module__ = summary, module
    build.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
    return register_model(family="resnet", input_size=input_size, paper=_PAPER, small_images=small_images)(build)


def _residual(name: str, block: Block, depths: Sequence[int]) -> Builder:
    of_bottlenecks = ("stride_in",) if block == "bottleneck" else ()
    options = ("stem", "shortcut", *of_bottlenecks, "stochastic_depth", "squeeze_excite")
    summary = f"Residual network: {', '.join(map(str, depths[:-1]))} and {depths[-1]} {block} blocks."
    return register_variant(name, summary, block, depths, options, input_size=224, small_images=_SMALL_IMAGES)


def _plain(name: str, depths: Sequence[int]) -> Builder:
    summary = f"Plain twin of {name.replace('plain', 'resnet')}: the same without skip connections."
    options = ("stem", "squeeze_excite")
    return register_variant(
        name, summary, "basic", depths, options, input_size=224, small_images=_SMALL_IMAGES, skip=False
    )


resnet18 = _residual("resnet18", "basic", (2, 2, 2, 2))
resnet34 = _residual("resnet34", "basic", (3, 4, 6, 3))
resnet50 = _residual("resnet50", "bottleneck", (3, 4, 6, 3))
resnet101 = _residual("resnet101", "bottleneck", (3, 4, 23, 3))
resnet152 = _residual("resnet152", "bottleneck", (3, 8, 36, 3))
plain18 = _plain("plain18", (2, 2, 2, 2))
plain34 = _plain("plain34", (3, 4, 6, 3))
