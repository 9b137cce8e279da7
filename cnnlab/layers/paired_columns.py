"""On one thread, convolutions to few channels as such to twice as many: two neighbouring columns of the output at once.

YNNPACK, one of XLA's libraries for CPU, is much slower with 16 output channels than with 32. Two columns of 16
channels lie in memory as one of 32, and a convolution makes them with a kernel that is one column wider and holds the
filters twice, the second time one column further to the right; the step along the rows is two. That takes 4 / 3 of the
operations for a kernel of 3 columns. The gradient of the kernel goes the same way back. With more threads Eigen, XLA's
other library, makes 16 channels as fast.

An input that is not finite reaches one more column of the output, as NaN, since the wider kernel has a column of zeros.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Found by trying 8, 16 and 32 channels; at 32 the operations that are added cost more than is gained.
_FEWEST_CHANNELS, _MOST_CHANNELS = 9, 16
_FEWEST_COLUMNS = 3  # of the kernel; of a narrower one, too many operations would be added


def pairing_pays(width: int, channels: int, kernel_width: int, dtype: jnp.dtype) -> bool:
    """Whether an output of so many columns and channels is made faster in pairs of columns, by steps of one."""
    few = _FEWEST_CHANNELS <= channels <= _MOST_CHANNELS
    return few and width % 2 == 0 and kernel_width >= _FEWEST_COLUMNS and dtype == jnp.float32


def pair_columns(outputs: jax.Array) -> jax.Array:
    """Make `[batch, height, width, channels]` into `[batch, height, width / 2, 2 channels]`, the same in memory."""
    batch, height, width, channels = outputs.shape
    return outputs.reshape(batch, height, width // 2, 2 * channels)


def part_columns(outputs: jax.Array) -> jax.Array:
    """Undo `pair_columns`."""
    batch, height, width, channels = outputs.shape
    return outputs.reshape(batch, height, 2 * width, channels // 2)


def pair_kernel(kernel: jax.Array) -> jax.Array:
    """Make a kernel `[h, w, in, out]` into that of pairs of columns, `[h, w + 1, in, 2 out]`."""
    return jnp.concatenate([jnp.pad(kernel, ((0, 0), (i, 1 - i), (0, 0), (0, 0))) for i in (0, 1)], -1)


def part_kernel(gradient: jax.Array) -> jax.Array:
    """Make the gradient of `pair_kernel(kernel)` into that of the kernel."""
    channels = gradient.shape[-1] // 2
    return gradient[:, :-1, :, :channels] + gradient[:, 1:, :, channels:]
