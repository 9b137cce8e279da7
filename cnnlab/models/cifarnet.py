"""The small network of the races on CIFAR-10: whitened patches, then three groups of convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from cnnlab.layers import BatchNorm, Conv, global_max_pool, max_pool
from cnnlab.layers.initializers import fan_in_uniform, identity_filters
from cnnlab.layers.whitening import patch_whitening_filters

from .image_side import expect_at_least
from .registry import register_model

_copies = identity_filters()
_gelu = partial(nnx.gelu, approximate=False)
_ACTIVATIONS = {"gelu": _gelu, "silu": nnx.silu}
_PAPER = 'K. Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", arXiv:2404.00498'


class CifarGroup(nnx.Module):
    """Two or three 3x3 convolutions, the first with max pooling: `[b, h, w, in]` to `[b, h // 2, w // 2, out]`.

    Convolution without bias, (2x2 maximum,) BatchNorm, activation; two or three times. With three, what the first
    activation gave is added before the last one.

    Args:
        in_features: channels of the input.
        out_features: filters of each convolution.
        depth: number of convolutions, 2 or 3.
        activation: "gelu" or "silu".
        norm_momentum: share of the old running statistics that one batch leaves.
        dtype: computation type; None keeps that of the inputs and parameters.
        rngs: source of the initial weights.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        depth: int,
        activation: str,
        norm_momentum: float,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        channels = [in_features, *[out_features] * depth]
        options: dict[str, Any] = dict(dtype=dtype, rngs=rngs)
        conv: Any = partial(Conv, kernel_size=3, padding="SAME", use_bias=False, kernel_init=_copies, **options)
        norm: Any = partial(BatchNorm, momentum=norm_momentum, epsilon=1e-12, use_scale=False, **options)
        self.convs = nnx.List([conv(a, b) for a, b in zip(channels[:-1], channels[1:], strict=True)])
        self.norms = nnx.List([norm(out_features) for _ in range(depth)])
        self.activation = _ACTIVATIONS[activation]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[batch, h, w, in_features]` to `[batch, h // 2, w // 2, out_features]`."""
        first = x = self.activation(self.norms[0](max_pool(self.convs[0](images), 2)))
        x = self.norms[1](self.convs[1](x))
        if len(self.convs) == 3:
            x = self.norms[2](self.convs[2](self.activation(x))) + first
        return self.activation(x)


class CifarNet(nnx.Module):
    """2x2 filters that whiten patches, three groups (`CifarGroup`), global maximum, one dense layer without bias.

    For 32-pixel images: 32 -> 31 by the unpadded first convolution, then 15, 7 and 3 by the groups. The
    filters of the first convolution, `whiten`, are computed from images by `prepare` and meant to stay as they are
    (`Recipe.freeze = ["whiten.kernel"]`); its bias trains. BatchNorm has a bias and no scale. The other convolutions
    begin with filters that copy their inputs (`cnnlab.layers.identity_filters`). 1,971,640 parameters, whitening
    filters included.

    Source: K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, arXiv:2404.00498.

    Args:
        num_classes: outputs; 0 leaves out the last layer, so that the network returns features.
        widths: filters of the three groups.
        depth: convolutions of a group, 2 or 3; groups of three have a shortcut.
        activation: that of the groups, "gelu" (exact) or "silu"; after whitening it is always GELU.
        whitening_width: filters of the first convolution; None is two for each value of a patch, which `prepare` needs.
        whitening_kernel: side of the first convolution's filters.
        logit_scale: what the logits are multiplied by.
        unit_head: whether the weights of the last layer begin with standard deviation 1.
        norm_momentum: share of the old running statistics that one batch leaves.
        in_channels: channels of the images.
        dtype: computation type; None keeps that of the inputs and parameters.
        rngs: source of the initial weights.

    Raises:
        ValueError: an impossible option; when called, images too small for three poolings.
    """

    def __init__(
        self,
        num_classes: int = 10,
        *,
        widths: Sequence[int] = (64, 256, 256),
        depth: int = 2,
        activation: str = "gelu",
        whitening_width: int | None = None,
        whitening_kernel: int = 2,
        logit_scale: float = 1 / 9,
        unit_head: bool = False,
        norm_momentum: float = 0.6,
        in_channels: int = 3,
        dtype: Dtype | None = None,
        rngs: nnx.Rngs,
    ):
        if activation not in _ACTIVATIONS:
            raise ValueError(f"Expected activation to be one of {', '.join(_ACTIVATIONS)}, got {activation!r}.")
        if depth not in (2, 3):
            raise ValueError(f"Expected depth 2 or 3, got {depth!r}; do choose one of the two.")
        if len(widths) != 3 or min(widths) < 1:
            raise ValueError(f"Expected three positive widths, got {tuple(widths)!r}; do pass e.g. (64, 256, 256).")
        self.logit_scale = logit_scale
        full = 2 * whitening_kernel**2 * in_channels
        first = full if whitening_width is None else whitening_width
        options: dict[str, Any] = dict(dtype=None if dtype is None else jnp.dtype(dtype), rngs=rngs)
        self.whiten = Conv(in_channels, first, whitening_kernel, padding="VALID", kernel_init=fan_in_uniform, **options)
        group: Any = partial(CifarGroup, depth=depth, activation=activation, norm_momentum=norm_momentum, **options)
        channels = [first, *widths]
        self.groups = nnx.List([group(a, b) for a, b in zip(channels[:-1], channels[1:], strict=True)])
        init = _unit_deviation if unit_head else fan_in_uniform
        linear: Any = partial(nnx.Linear, use_bias=False, kernel_init=init, **options)
        self.head = linear(widths[-1], num_classes) if num_classes else None

    def prepare(self, images: jax.Array) -> None:
        """Set the first filters to those that whiten the patches of these images (`patch_whitening_filters`).

        Args:
            images: float `[n, height, width, channels]`, as the network will see them; some thousands will do.

        Raises:
            ValueError: a `whitening_width` other than two filters for each value of a patch.
        """
        kernel = self.whiten.kernel
        filters = patch_whitening_filters(images, kernel.shape[0])
        if filters.shape != kernel.shape:
            raise ValueError(
                f"Expected whitening_width {filters.shape[-1]} to whiten patches, got {kernel.shape[-1]}; "
                "do leave the option out."
            )
        kernel[...] = filters.astype(kernel.dtype)

    def features(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to the largest value of each map, `[batch, widths[-1]]`."""
        expect_at_least(min(images.shape[1:3]), 8 + self.whiten.kernel.shape[0] - 1, "cifarnet")
        x = _gelu(self.whiten(images))  # [b, 31, 31, 24] of 32-pixel images
        for group in self.groups:
            x = group(x)
        return global_max_pool(x)  # [b, c]

    def __call__(self, images: jax.Array) -> jax.Array:
        """Map `[batch, height, width, channels]` to logits `[batch, num_classes]`."""
        x = self.features(images)
        return x if self.head is None else self.head(x) * self.logit_scale


def _unit_deviation(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
    """Uniform weights, divided by their standard deviation."""
    kernel = fan_in_uniform(key, shape, dtype)
    return kernel / kernel.std(ddof=1)


@register_model(paper=_PAPER)
def cifarnet(
    num_classes: int = 10,
    *,
    widths: Sequence[int] = (64, 256, 256),
    depth: int = 2,
    activation: str = "gelu",
    whitening_width: int | None = None,
    whitening_kernel: int = 2,
    logit_scale: float = 1 / 9,
    unit_head: bool = False,
    norm_momentum: float = 0.6,
    in_channels: int = 3,
    dtype: Dtype | None = None,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """The network of the races on CIFAR-10: whitened 2x2 patches, then three groups of 3x3 convolutions."""
    return CifarNet(
        num_classes,
        widths=tuple(widths),
        depth=depth,
        activation=activation,
        whitening_width=whitening_width,
        whitening_kernel=whitening_kernel,
        logit_scale=logit_scale,
        unit_head=unit_head,
        norm_momentum=norm_momentum,
        in_channels=in_channels,
        dtype=dtype,
        rngs=rngs,
    )
