"""Convolutions by oneDNN, with which PyTorch computes on CPU and which the compiler inside JAX contains too: a trial.

JAX's wheels for Linux on x86 hold oneDNN, and XLA's compiler for CPU runs the custom calls by which a rewriter of its
own could hand convolutions over (openxla/xla, `cpu/onednn_convolution.cc`). The wheels leave that rewriter idle: it is
meant for a build of oneDNN that works asynchronously, which they do not hold. The calls work all the same, by all
threads and faster than XLA's two other libraries, but once in some fifty runs by hand a process was seen to die of a
corrupted heap, and the cause was not found. So this module does nothing unless `CNNLAB_ONEDNN=1` is set in the
environment before the first convolution.

The call is no public interface of XLA either. It is written only for the versions of jaxlib listed here, whose form of
the call is known, and after one small convolution had the right result in this process. XLA cannot write a program with
such a call to its compilation cache; the warning about that is silenced.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
import warnings
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np

from .finished import several_devices

Pads = tuple[tuple[int, int], tuple[int, int]]
Pair = tuple[int, int]

# With which the form of the call was tried. A form that it does not know ends the process, so no other is tried.
_KNOWN_VERSIONS = ("0.10.2", "0.12.0.1")
_FEWEST_MULTIPLY_ADDS = 2**20  # below, the call costs more than it gains
_IN_ORDER = (0, 1, 2, 3)


def onednn_takes(
    input_shape: Sequence[int], kernel_shape: Sequence[int], dtype: Any, padding: Pads, dilation: Pair, strides: Pair
) -> bool:
    """Whether `onednn_convolution` should compute a convolution of such arrays here, on CPU.

    Args:
        input_shape: `[batch, height, width, in_channels]`.
        kernel_shape: `[kernel_height, kernel_width, in_channels, out_channels]`.
        dtype: of both; only float32 is taken.
        padding: `(before, after)` for height and width.
        dilation: of the kernel.
        strides: step of the window.
    """
    if dtype != jnp.float32 or several_devices():
        return False
    reach = [(k - 1) * d for k, d in zip(kernel_shape[:2], dilation, strict=True)]
    if any(not 0 <= pad <= most for pads, most in zip(padding, reach, strict=True) for pad in pads):
        return False
    size = _output_size(input_shape, kernel_shape, padding, dilation, strides)
    work = input_shape[0] * math.prod(size) * math.prod(kernel_shape)
    return work >= _FEWEST_MULTIPLY_ADDS and onednn_is_there()


def onednn_convolution(
    inputs: jax.Array,
    kernel: jax.Array,
    *,
    strides: Pair = (1, 1),
    padding: Pads = ((0, 0), (0, 0)),
    dilation: Pair = (1, 1),
    kernel_order: Sequence[int] = _IN_ORDER,
) -> jax.Array:
    """Convolve on CPU by oneDNN; not differentiable, not to be batched.

    Args:
        inputs: `[batch, height, width, in_channels]`, float32.
        kernel: `[kernel_height, kernel_width, in_channels, out_channels]`, float32.
        strides: step of the window.
        padding: `(before, after)` for height and width; not negative, and no more than the kernel reaches, beyond which
            some of oneDNN's kernels were not tried.
        dilation: of the kernel.
        kernel_order: the axes of `kernel` as they should lie in memory, the outermost first. oneDNN brings the kernel
            into an order of its own in any case; so a kernel that was transposed need not be copied before.

    Returns:
        `[batch, out_height, out_width, out_channels]`.
    """
    _silence_the_cache()
    size = _output_size(inputs.shape, kernel.shape, padding, dilation, strides)
    images = {"dims": 4, "data": {"batch_dim": 0, "feature_dim": 3, "spatial_dims": [1, 2]}}
    filters = {"dims": 4, "filter": {"input_feature_dim": 2, "output_feature_dim": 3, "spatial_dims": [0, 1]}}
    window = {
        "size": list(kernel.shape[:2]),
        "pad_left": [pad[0] for pad in padding],
        "pad_right": [pad[1] for pad in padding],
        "strides": list(strides),
        "window_dilations": list(dilation),
    }
    config = {"dims": 4, "input": images, "kernel": filters, "output": images, "window": window, "feature_groups": 1}
    call = jax.ffi.ffi_call(
        "__onednn$convolution",
        jax.ShapeDtypeStruct((inputs.shape[0], *size, kernel.shape[3]), inputs.dtype),
        custom_call_api_version=1,
        legacy_backend_config=json.dumps({"onednn_conv_config": config}),
        input_layouts=[_IN_ORDER, tuple(kernel_order)],
    )
    return call(inputs, kernel)


@cache
def onednn_is_there() -> bool:
    """Whether oneDNN may be used, and the compiler of this process runs its convolutions rightly; tried once."""
    if os.environ.get("CNNLAB_ONEDNN") != "1":
        return False
    missing = _missing()
    if missing:
        warnings.warn(f"CNNLAB_ONEDNN=1 does nothing here: {missing}.", stacklevel=2)
    return not missing


def _missing() -> str:
    """What speaks against oneDNN in this process; nothing where a small convolution comes out right."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or jax.default_backend() != "cpu":
        return "it needs JAX on a CPU, on Linux and x86-64"
    version = jaxlib.version.__version__
    if version not in _KNOWN_VERSIONS:
        return f"it is known with jaxlib {' and '.join(_KNOWN_VERSIONS)}, this is {version}"
    images = np.arange(2 * 5 * 6 * 3, dtype=np.float32).reshape(2, 5, 6, 3) % 7
    filters = np.arange(3 * 2 * 3 * 4, dtype=np.float32).reshape(3, 2, 3, 4) % 5
    options: dict[str, Any] = {"strides": (2, 1), "padding": ((1, 0), (0, 1)), "dilation": (1, 2)}
    try:
        with jax.ensure_compile_time_eval():  # others may be traced just now
            ours = np.asarray(jax.jit(partial(onednn_convolution, **options))(images, filters))
    except Exception as error:  # such as a compiler that does not know the call
        return f"a first convolution failed ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
    return "" if np.array_equal(ours, _by_numpy(images, filters, **options)) else "a first convolution came out wrong"


def _by_numpy(images: np.ndarray, filters: np.ndarray, strides: Pair, padding: Pads, dilation: Pair) -> np.ndarray:
    height, width = _output_size(images.shape, filters.shape, padding, dilation, strides)
    images = np.pad(images, ((0, 0), *padding, (0, 0)))
    out = np.zeros((images.shape[0], height, width, filters.shape[3]), np.float32)
    for i, j in np.ndindex(*filters.shape[:2]):
        rows = slice(i * dilation[0], i * dilation[0] + (height - 1) * strides[0] + 1, strides[0])
        columns = slice(j * dilation[1], j * dilation[1] + (width - 1) * strides[1] + 1, strides[1])
        out += images[:, rows, columns] @ filters[i, j]
    return out


def _output_size(
    input_shape: Sequence[int], kernel_shape: Sequence[int], padding: Pads, dilation: Pair, strides: Pair
) -> Pair:
    window = [(k - 1) * d + 1 for k, d in zip(kernel_shape[:2], dilation, strict=True)]
    padded = [size + sum(pads) for size, pads in zip(input_shape[1:3], padding, strict=True)]
    height, width = ((size - w) // s + 1 for size, w, s in zip(padded, window, strides, strict=True))
    return height, width


def _silence_the_cache() -> None:
    """Drop the warning about programs that cannot be kept; each time, since filters end with `catch_warnings`."""
    message = "Error writing persistent compilation cache entry .*bad_alloc"
    warnings.filterwarnings("ignore", message=message, category=UserWarning)
