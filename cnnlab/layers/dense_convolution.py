"""Dense 2-D convolution in NHWC as a primitive whose two gradients are again convolutions in NHWC.

JAX writes the weight gradient of a convolution with batch and channels swapped in its dimension numbers. XLA's
compiler for CPU brings that into the one form its fast kernels take only where it stands in the outermost program:
inside a loop it falls to naive code, up to 120 times slower (openxla/xla, `cpu/conv_canonicalization.cc`). It also
fuses whatever produced the operands into the transposing copy, and then computes a whole residual stream again,
against the order of memory. So this primitive writes its gradients as plain NHWC convolutions of transposed arrays on
CPU. That of the kernel goes through the batch in parts that fit into a core's caches, by a loop whose operands XLA
has to finish first; where the batch is one part, `finished.py` does that. Elsewhere the gradients are JAX's own, which
cuDNN knows.

The primitive is bilinear and its gradients are made of itself, so derivatives of any order and of either mode exist.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType

from .finished import finished, several_devices
from .paired_columns import pair_columns, pair_kernel, pairing_pays, part_columns, part_kernel

Pads = tuple[tuple[int, int], tuple[int, int]]
Pair = tuple[int, int]

_NHWC = ("NHWC", "HWIO", "NHWC")
# XLA gives a convolution to YNNPACK from so many channels on, in or out, and to Eigen below (its `cpu/ynn_support.cc`).
_CHANNELS_OF_YNNPACK = 17
_FEWEST_IN_CHANNELS = 8  # with fewer, YNNPACK is no faster than Eigen
# YNNPACK takes a second thread only from so many output channels on (measured); Eigen uses all there are.
_CHANNELS_OF_TWO_THREADS = 128
# Found by trying batches of 32 to 1024 images of 2 to 32 pixels and 16 to 512 channels on one kind of processor.
_CHANNELS_OF_A_PANEL, _BYTES_OF_A_PANEL, _FEWEST_IMAGES = 64, 2**18, 8
_MOST_KERNELS = 32  # of a `vmap` stand side by side in the program; more of them are a loop


def dense_conv(
    inputs: jax.Array,
    kernel: jax.Array,
    *,
    strides: Sequence[int] = (1, 1),
    padding: Sequence[tuple[int, int]] = ((0, 0), (0, 0)),
    lhs_dilation: Sequence[int] = (1, 1),
    rhs_dilation: Sequence[int] = (1, 1),
) -> jax.Array:
    """Convolve without groups; the value is that of `jax.lax.conv_general_dilated` where the inputs are finite.

    Args:
        inputs: `[batch, height, width, in_channels]`.
        kernel: `[kernel_height, kernel_width, in_channels, out_channels]`, of the same type.
        strides: step of the window.
        padding: `(before, after)` for height and width; negative values crop.
        lhs_dilation: pixels of the input lie so far apart, zeros between them.
        rhs_dilation: likewise the kernel's.

    Returns:
        `[batch, out_height, out_width, out_channels]`.
    """
    options = _Options((tuple(strides), tuple(map(tuple, padding)), tuple(lhs_dilation), tuple(rhs_dilation)))
    if not _is_plain(inputs, kernel, options):
        return options.reference(inputs, kernel)
    return _conv_p.bind(inputs, kernel, options=options)


def _is_plain(inputs: jax.Array, kernel: jax.Array, options: _Options) -> bool:
    """Whether the primitive may take over, which knows neither symbolic nor empty shapes, nor more than lax's defaults.

    Arrays whose types name axes of a mesh (in `shard_map`, or under explicit sharding) and a matrix product precision
    that was set for a while are left to lax as well.
    """
    types = [jax.typeof(x) for x in (inputs, kernel)]
    if not all(isinstance(size, int) and size for t in types for size in t.shape):
        return False
    if any(kind is not AxisType.Auto for t in types for kind in t.sharding.mesh.axis_types):
        return False
    if jax.config.jax_default_matmul_precision is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return False
    return bool(min(jax.eval_shape(options.reference, inputs, kernel).shape))


class _Options(tuple):
    """Strides, padding and the two dilations of a convolution, hashable."""

    __slots__ = ()

    def reference(self, inputs: Any, kernel: Any) -> Any:
        """JAX's own convolution."""
        strides, padding, lhs_dilation, rhs_dilation = self
        return lax.conv_general_dilated(
            inputs, kernel, strides, padding, lhs_dilation, rhs_dilation, dimension_numbers=_NHWC
        )

    @property
    def by_one(self) -> bool:
        """Whether the window moves by one pixel, and neither inputs nor kernel are dilated."""
        strides, _, lhs_dilation, rhs_dilation = self
        return strides == lhs_dilation == rhs_dilation == (1, 1)

    def in_pairs(self) -> _Options:
        """Options of the convolution that makes pairs of columns (`paired_columns.py`)."""
        return _Options(((1, 2), *self[1:]))

    def of_inputs(self, out_size: Pair, in_size: Pair, kernel_size: Pair) -> _Options:
        """Options of the convolution of the output's gradient with the turned kernel that gives that of the inputs."""
        strides, _, lhs_dilation, rhs_dilation = self
        pads = []
        for out, size, k, s, (low, _), a, d in zip(out_size, in_size, kernel_size, *self, strict=True):
            before = (k - 1) * d - low
            pads.append((before, (size - 1) * a + (k - 1) * d + 1 - ((out - 1) * s + 1) - before))
        return _Options((lhs_dilation, tuple(pads), strides, rhs_dilation))

    def of_kernel(self, out_size: Pair, in_size: Pair, kernel_size: Pair) -> _Options:
        """Options of the convolution of the inputs with the gradient of the output that gives that of the kernel."""
        strides, _, lhs_dilation, rhs_dilation = self
        pads = []
        for out, size, k, s, (low, _), a, d in zip(out_size, in_size, kernel_size, *self, strict=True):
            pads.append((low, (k - 1) * d + (out - 1) * s + 1 - ((size - 1) * a + 1) - low))
        return _Options((rhs_dilation, tuple(pads), lhs_dilation, strides))


_conv_p = Primitive("dense_conv")


def _gradient_of_inputs(gradient: Any, inputs: Any, kernel: Any, *, options: _Options) -> Any:
    shape = inputs.aval.shape
    own = options.of_inputs(gradient.shape[1:3], shape[1:3], kernel.shape[:2])

    def on_cpu(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
        return _conv_p.bind(gradient, kernel[::-1, ::-1].transpose(0, 1, 3, 2), options=own)

    def elsewhere(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
        like = jax.ShapeDtypeStruct(shape, inputs.aval.dtype)
        return jax.linear_transpose(lambda x: options.reference(x, kernel), like)(gradient)[0]

    return lax.platform_dependent(gradient, kernel, cpu=on_cpu, default=elsewhere)


def _gradient_of_kernel(gradient: Any, inputs: Any, kernel: Any, *, options: _Options) -> Any:
    like = jax.ShapeDtypeStruct(kernel.aval.shape, kernel.aval.dtype)

    def elsewhere(gradient: jax.Array, inputs: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda w: options.reference(inputs, w), like)(gradient)[0]

    on_cpu = partial(_gradient_of_kernel_on_cpu, like=like, options=options)
    return lax.platform_dependent(gradient, inputs, cpu=on_cpu, default=elsewhere)


def _gradient_of_kernel_on_cpu(gradient: Any, inputs: Any, *, like: Any, options: _Options) -> jax.Array:
    height, width, in_channels, out_channels = like.shape
    if _threads() == 1 and options.by_one and pairing_pays(gradient.shape[2], out_channels, width, gradient.dtype):
        like = like.update(shape=(height, width + 1, in_channels, 2 * out_channels))
        wide = _gradient_of_kernel_on_cpu(pair_columns(gradient), inputs, like=like, options=options.in_pairs())
        return part_kernel(wide)
    own = options.of_kernel(gradient.shape[1:3], inputs.shape[1:3], like.shape[:2])

    def of_part(gradient: jax.Array, inputs: jax.Array) -> jax.Array:
        images, window = inputs.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)  # batch is what is summed over
        return _conv_p.bind(images, window, options=own)  # [in_channels, kernel_height, kernel_width, out_channels]

    batch, size = gradient.shape[0], _images_of_a_part(gradient.shape, gradient.dtype.itemsize)
    if size == batch:
        return of_part(finished(gradient), finished(inputs)).transpose(1, 2, 0, 3)

    type_of_sum = jnp.promote_types(like.dtype, jnp.float32)

    def add_part(number: jax.Array, total: jax.Array) -> jax.Array:
        return total + of_part(*(lax.dynamic_slice_in_dim(x, number * size, size) for x in (gradient, inputs)))

    rest = batch % size
    if rest:
        total = of_part(*(finished(x[batch - rest :]) for x in (gradient, inputs))).astype(type_of_sum)
    else:
        total = jnp.zeros((in_channels, height, width, out_channels), type_of_sum)
    total = lax.fori_loop(0, batch // size, add_part, total)
    return total.transpose(1, 2, 0, 3).astype(like.dtype)


def _images_of_a_part(shape: Sequence[int], itemsize: int) -> int:
    """How many images' gradients `[batch, height, width, channels]` a weight gradient takes at a time on CPU.

    They are the kernel of that convolution, of which YNNPACK goes through a panel of 64 channels again and again. So a
    part is as large as leaves a panel in a core's second cache (docs/performance.md). Where several devices have a
    share of the batch each, a loop over all of it would bring the shares together again; it stays whole.
    """
    batch, height, width, channels = shape
    if several_devices():
        return batch
    panel = height * width * min(channels, _CHANNELS_OF_A_PANEL) * itemsize
    size = 2 ** round(math.log2(max(_BYTES_OF_A_PANEL / panel, _FEWEST_IMAGES)))
    return batch if batch < 2 * size else size


def _lower_on_cpu(inputs: Any, kernel: Any, *, options: _Options) -> Any:
    """Bring about the choice between XLA's two libraries that is faster with the threads of this process.

    XLA chooses by the numbers of channels alone. With one thread YNNPACK is the faster one; where there are few output
    channels, pairs of columns get it, or more channels. With more threads Eigen is, as long as YNNPACK uses only one
    of them; and since XLA keeps YNNPACK from convolutions that make images larger, one more row of padding gets Eigen.
    """
    height, in_channels, out_channels = inputs.shape[1], *kernel.shape[2:]
    strides, ((top, bottom), sides), lhs_dilation, rhs_dilation = options
    simple = strides == lhs_dilation == (1, 1) and kernel.shape[:2] != (1, 1) and inputs.dtype == jnp.float32
    out_height = height + top + bottom - (kernel.shape[0] - 1) * rhs_dilation[0]
    if _threads() == 1:
        width = inputs.shape[2] + sum(sides) - kernel.shape[1] + 1
        few_inputs = _FEWEST_IN_CHANNELS <= in_channels < _CHANNELS_OF_YNNPACK
        if few_inputs and options.by_one and pairing_pays(width, out_channels, kernel.shape[1], inputs.dtype):
            return part_columns(options.in_pairs().reference(inputs, pair_kernel(kernel)))
        more = _CHANNELS_OF_YNNPACK - out_channels
        if few_inputs and simple and more > 0:
            return options.reference(inputs, jnp.pad(kernel, ((0, 0), (0, 0), (0, 0), (0, more))))[..., :out_channels]
    elif simple and out_height == height and out_channels < _CHANNELS_OF_TWO_THREADS:
        if max(in_channels, out_channels) >= _CHANNELS_OF_YNNPACK:
            larger = _Options((strides, ((top, bottom + 1), sides), lhs_dilation, rhs_dilation))
            return larger.reference(inputs, kernel)[:, :height]
    return options.reference(inputs, kernel)


@cache
def _threads() -> int:
    """CPUs that this process could use when it first asked, for each of which XLA makes a thread."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batched(arrays: Sequence[Any], axes: Sequence[Any], *, options: _Options) -> tuple[Any, int]:
    """Under `vmap` over images alone, the batches are one.

    Over kernels it is a convolution each on CPU, where XLA's grouped convolution has no fast gradients, and JAX's rule,
    a grouped convolution, elsewhere.
    """
    inputs, kernel = arrays
    axis, kernel_axis = axes
    if kernel_axis is None:
        inputs = jnp.moveaxis(inputs, axis, 0)
        y = _conv_p.bind(inputs.reshape(-1, *inputs.shape[2:]), kernel, options=options)
        return y.reshape(*inputs.shape[:2], *y.shape[1:]), 0

    def on_cpu(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        pairs = [x if a is None else jnp.moveaxis(x, a, 0) for x, a in ((inputs, axis), (kernel, kernel_axis))]
        count = pairs[1].shape[0]
        if axis is None:
            pairs[0] = jnp.broadcast_to(pairs[0][None], (count, *pairs[0].shape))
        if count > _MOST_KERNELS:
            return lax.map(lambda pair: _conv_p.bind(*pair, options=options), tuple(pairs))
        return jnp.stack([_conv_p.bind(x, w, options=options) for x, w in zip(*pairs, strict=True)])

    elsewhere = jax.vmap(options.reference, tuple(axes))
    return lax.platform_dependent(inputs, kernel, cpu=on_cpu, default=elsewhere), 0


def _abstract(inputs: Any, kernel: Any, *, options: _Options) -> Any:
    out = jax.eval_shape(options.reference, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (inputs, kernel)))
    return inputs.update(shape=out.shape, dtype=out.dtype)


_conv_p.def_impl(partial(jax.jit, static_argnames="options")(partial(_conv_p.bind)))
_conv_p.def_abstract_eval(_abstract)
ad.defbilinear(_conv_p, _gradient_of_inputs, _gradient_of_kernel)
batching.primitive_batchers[_conv_p] = _batched
mlir.register_lowering(
    _conv_p, mlir.lower_fun(lambda x, w, *, options: options.reference(x, w), multiple_results=False)
)
mlir.register_lowering(_conv_p, mlir.lower_fun(_lower_on_cpu, multiple_results=False), platform="cpu")
