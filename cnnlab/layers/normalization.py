"""Batch normalisation with the constants of the papers and statistics in float32."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype, Initializer
from jax.core import Tracer


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation over all axes but the last: `[batch, h, w, features]` to the same shape.

        y = scale * (x - mean) / sqrt(var + epsilon) + bias

    In train mode `mean` and `var` are those of the batch, and the running ones move towards them; in eval mode they
    are the running ones. It is `flax.nnx.BatchNorm` with three differences: the constants below; a variance that is
    computed from the differences to the mean, since the difference of two squares loses all digits when the mean is
    large; and float32 arithmetic in both modes whatever `dtype` is, which only rounds the result.

    Two conventions differ from PyTorch's. `momentum` is the share of the old value (PyTorch: of the new one). The
    running variance is the biased one (PyTorch divides by n - 1 there): with n numbers per channel it is smaller by
    the factor (n - 1) / n, which nobody sees but at tiny batches of tiny images.

    Source: S. Ioffe and C. Szegedy, "Batch Normalization", 2015, arXiv:1502.03167.

    Args:
        num_features: channels.
        momentum: share of the old running statistics that one batch leaves.
        epsilon: added to the variance.
        scale_init: initial scales.
        dtype: type of the result; None is that of inputs and parameters. The statistics are float32.
        param_dtype: type of scale and bias.
        rngs: source of the initial weights.
        **options: others of `flax.nnx.BatchNorm`: `use_bias`, `use_scale`, `axis_name`, ...
    """

    def __init__(
        self,
        num_features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        scale_init: Initializer = nnx.initializers.ones,
        dtype: Dtype | None = None,
        param_dtype: Dtype = jnp.float32,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        options = {"use_running_average": False, "use_fast_variance": False, "promote_dtype": _unchanged, **options}
        super().__init__(
            num_features,
            momentum=momentum,
            epsilon=epsilon,
            scale_init=scale_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
            **options,
        )
        self.mean, self.var = (RunningStatistic(v[...], **v.get_metadata()) for v in (self.mean, self.var))


class RunningStatistic(nnx.BatchStat):
    """A batch statistic that is cheap to replace while JAX traces.

    flax compares the sharding of the new array with that of the old one. A tracer has none, and JAX's answer (until
    its pull request 40041) is an error that lists where the tracer came from: a search through all of the program so
    far, for each layer. Tracing a ResNet-152 took ten times as long.
    """

    def __setitem__(self, key: Any, value: Any) -> None:
        old = self.get_raw_value()
        if key is ... and isinstance(value, Tracer) and (value.shape, value.dtype) == (old.shape, old.dtype):
            self.set_value(value)
        else:
            super().__setitem__(key, value)


def _unchanged(arrays: tuple[jax.Array | None, ...], **_: Any) -> tuple[jax.Array | None, ...]:
    """Leave the types to the arithmetic: float32 statistics make it float32, and flax casts the result."""
    return arrays
