"""Dense 2-D convolution in NHWC as a primitive whose two gradients are again convolutions in NHWC.

JAX writes the weight gradient of a convolution with batch and channels swapped in its dimension numbers. XLA's
compiler for CPU brings that into the one form its fast kernels take only where it stands in the outermost program:
inside a loop it falls to naive code, up to 120 times slower (openxla/xla, `cpu/conv_canonicalization.cc`). It also
fuses whatever produced the operands into the transposing copy, and then computes a whole residual stream again,
against the order of memory. So this primitive writes its gradients as NHWC convolutions of transposed arrays on CPU.
That of the kernel goes through the batch in parts that fit into a core's caches, by a loop whose operands XLA has to
finish first; where the batch is one part, `finished.py` does that. It has two forms: plain, with the channels of the
inputs as the batch, and folded, with these channels in the rows of one image (`convolution_options.py`). Elsewhere the
gradients are JAX's own, which cuDNN knows. Where there are many channels, 3x3 convolutions are no convolutions on CPU
but matrix products over transformed tiles, in all three passes, that of the kernel from more channels on
(`winograd.py`).

The primitive is bilinear and its gradients are made of itself, or of operations that JAX differentiates, so derivatives
of any order and of either mode exist.
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

from .convolution_options import ConvolutionOptions
from .devices import several_devices
from .finished import finished
from .paired_columns import pair_columns, pair_kernel, pairing_pays, part_columns, part_kernel
from .parts_of_batch import sum_over_parts
from .winograd import gradient_of_kernel_pays, winograd_conv, winograd_gradient_of_kernel, winograd_pays

# XLA gives a convolution to YNNPACK from so many channels on, in or out, and to Eigen below (its `cpu/ynn_support.cc`).
_CHANNELS_OF_YNNPACK = 17
_FEWEST_IN_CHANNELS = 8  # with fewer, YNNPACK is no faster than Eigen
# YNNPACK takes a second thread only from so many output channels on (measured); Eigen uses all there are.
_CHANNELS_OF_TWO_THREADS = 128
# Of the output; with fewer, YNNPACK's one thread is faster than all of Eigen's (measured with two, assumed for more).
_FEWEST_CHANNELS_TIMES_THREADS = 17
_FOLDED_CHANNELS = range(17, 128)  # of the output, between which XLA's libraries are faster in the folded form
# A weight gradient goes through parts of the batch whose panel, in either form, leaves room in a core's second cache;
# found by trying batches of 32 to 1024 images of 2 to 32 pixels and 16 to 512 channels on one kind of processor.
_CHANNELS_OF_A_PANEL = 64
_BYTES_OF_A_PANEL, _BYTES_OF_A_FOLDED_PANEL = 2**18, 2**17
_FEWEST_IMAGES = 8
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
    """Convolve without groups, as `jax.lax.conv_general_dilated` does where inputs and kernel are far from overflow.

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
    options = ConvolutionOptions.of(strides, padding, lhs_dilation, rhs_dilation)
    if not _is_plain(inputs, kernel, options):
        return options.reference(inputs, kernel)
    return _conv(inputs, kernel, options)


def _is_plain(inputs: jax.Array, kernel: jax.Array, options: ConvolutionOptions) -> bool:
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


_conv_p = Primitive("dense_conv")


def _conv(inputs: Any, kernel: Any, options: ConvolutionOptions, *, turned: bool = False) -> Any:
    """Convolve with `kernel` or `_turned(kernel)`."""
    return _conv_p.bind(inputs, kernel, options=options, turned=turned)


def _turned(kernel: Any) -> Any:
    """The kernel of a gradient of inputs: turned by half a turn, `[h, w, out, in]`; its own inverse."""
    pixels = kernel.reshape(-1, *kernel.shape[2:])
    turned = jnp.take(pixels, jnp.arange(len(pixels) - 1, -1, -1), axis=0, mode="clip")  # faster than `[::-1]`
    return turned.reshape(kernel.shape).transpose(0, 1, 3, 2)


@jax.named_scope("gradient_of_inputs")  # so profiles tell the three passes apart
def _gradient_of_inputs(gradient: Any, inputs: Any, kernel: Any, *, options: ConvolutionOptions, turned: bool) -> Any:
    shape = inputs.aval.shape
    own = options.of_inputs(gradient.shape[1:3], shape[1:3], kernel.shape[:2])

    def on_cpu(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
        return _conv(gradient, kernel, own, turned=not turned)

    def elsewhere(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
        like = jax.ShapeDtypeStruct(shape, inputs.aval.dtype)
        return jax.linear_transpose(lambda x: _elsewhere(x, kernel, options, turned), like)(gradient)[0]

    return lax.platform_dependent(gradient, kernel, cpu=on_cpu, default=elsewhere)


@jax.named_scope("gradient_of_kernel")
def _gradient_of_kernel(gradient: Any, inputs: Any, kernel: Any, *, options: ConvolutionOptions, turned: bool) -> Any:
    given = jax.ShapeDtypeStruct(kernel.aval.shape, kernel.aval.dtype)
    like = jax.eval_shape(_turned, given) if turned else given

    def elsewhere(gradient: jax.Array, inputs: jax.Array) -> jax.Array:
        return jax.linear_transpose(lambda w: options.reference(inputs, w), like)(gradient)[0]

    on_cpu = partial(_gradient_of_kernel_on_cpu, like=like, options=options)
    found = lax.platform_dependent(gradient, inputs, cpu=on_cpu, default=elsewhere)
    return _turned(found) if turned else found


def _gradient_of_kernel_on_cpu(gradient: Any, inputs: Any, *, like: Any, options: ConvolutionOptions) -> jax.Array:
    if _by_winograd(inputs, like, options, gradient_of_kernel=True):
        return winograd_gradient_of_kernel(inputs, gradient, options.padding)
    own = options.of_kernel(gradient.shape[1:3], inputs.shape[1:3], like.shape[:2])
    height, width, in_channels, out_channels = like.shape
    if _threads() == 1 and options.by_one and pairing_pays(gradient.shape[2], out_channels, width, gradient.dtype):
        like = like.update(shape=(height, width + 1, in_channels, 2 * out_channels))
        gradient, options = pair_columns(gradient), options.in_pairs()
        own = options.of_kernel(gradient.shape[1:3], inputs.shape[1:3], like.shape[:2])
        return part_kernel(_in_parts(gradient, inputs, like, own, fold=False))
    fold = out_channels in _FOLDED_CHANNELS and own.foldable and like.dtype == jnp.float32 and not several_devices()
    return _in_parts(gradient, inputs, like, own, fold=fold)


def _in_parts(gradient: Any, inputs: Any, like: Any, options: ConvolutionOptions, *, fold: bool) -> jax.Array:
    """A weight gradient as a loop over parts of the batch.

    Args:
        gradient: of the output.
        inputs: of the convolution.
        like: the kernel's shape and type.
        options: of the convolution that makes the gradient.
        fold: whether the channels of the inputs are folded into their width.
    """

    def of_part(gradient: jax.Array, inputs: jax.Array, fold: bool) -> jax.Array:
        window = gradient.transpose(1, 2, 0, 3)  # the batch is what is summed over
        if not fold:
            images = inputs.transpose(3, 1, 2, 0)
            return _conv(images, window, options).transpose(1, 2, 0, 3)
        images, _ = _padded(inputs, options)
        images = images.reshape(*images.shape[:2], -1).transpose(1, 2, 0)[None]
        return _conv(images, window, options.folded(like.shape[2])).reshape(like.shape)

    batch, size = gradient.shape[0], _images_of_a_part(gradient.shape, gradient.dtype.itemsize, fold)
    if size == batch:
        return of_part(finished(gradient), finished(inputs), fold)

    def of_rest(gradient: jax.Array, inputs: jax.Array) -> jax.Array:
        enough = 2 * (batch % size) >= size  # images are the channels of the folded form
        return of_part(finished(gradient), finished(inputs), fold and enough)

    return sum_over_parts(partial(of_part, fold=fold), (gradient, inputs), size, like, of_rest)


def _images_of_a_part(shape: Sequence[int], itemsize: int, fold: bool) -> int:
    """How many images' gradients `[batch, height, width, channels]` a weight gradient takes at a time on CPU.

    They are the kernel of that convolution, of which a library goes through a panel of 64 channels again and again. So
    a part is as large as leaves a panel in a core's second cache (docs/performance.md). Where several devices have a
    share of the batch each, a loop over all of it would bring the shares together again; it stays whole.
    """
    batch, height, width, channels = shape
    if several_devices():
        return batch
    panel = height * width * min(channels, _CHANNELS_OF_A_PANEL) * itemsize
    most = _BYTES_OF_A_FOLDED_PANEL if fold else _BYTES_OF_A_PANEL
    size = 2 ** round(math.log2(max(most / panel, _FEWEST_IMAGES)))
    return batch if batch < 2 * size else size


def _on_cpu(inputs: Any, kernel: Any, *, options: ConvolutionOptions, turned: bool) -> Any:
    """Take Winograd's way where that pays, or bring about the choice among the libraries within XLA that is fastest.

    XLA chooses by the numbers of channels alone. With one thread YNNPACK is the faster one; where there are few output
    channels, pairs of columns get it, or more channels. With more threads Eigen is, from some output channels on, as
    long as YNNPACK uses only one of them; and since XLA keeps YNNPACK from convolutions that make images larger, one
    more row of padding gets Eigen.
    """
    if _by_winograd(inputs, kernel, options):
        return winograd_conv(inputs, kernel, options.padding, turned=turned)
    if turned:
        kernel = _turned(kernel)
    if options.crops:  # Eigen may read outside of what it has to crop (openxla/xla#48713)
        inputs, options = _padded(inputs, options)
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
        enough = _threads() * out_channels >= _FEWEST_CHANNELS_TIMES_THREADS
        if enough and max(in_channels, out_channels) >= _CHANNELS_OF_YNNPACK:
            larger = options._replace(padding=((top, bottom + 1), sides))
            return larger.reference(inputs, kernel)[:, :height]
    return options.reference(inputs, kernel)


def _by_winograd(inputs: Any, kernel: Any, options: ConvolutionOptions, *, gradient_of_kernel: bool = False) -> bool:
    """Whether to go by transformed tiles, whose parts of the batch would bring the shares of devices together."""
    if not options.by_one or several_devices():
        return False
    pays = gradient_of_kernel_pays if gradient_of_kernel else winograd_pays
    return pays(inputs.shape, kernel.shape, options.padding, inputs.dtype)


def _padded(inputs: Any, options: ConvolutionOptions) -> tuple[Any, ConvolutionOptions]:
    """Crop, dilate and pad the inputs where their options say so in a way that not every library can."""
    spread, rest = options.with_padded_inputs()
    return inputs if spread is None else lax.pad(inputs, jnp.zeros((), inputs.dtype), spread), rest


@cache
def _threads() -> int:
    """CPUs that this process could use when it first asked, for each of which XLA makes a thread."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batched(arrays: Sequence[Any], axes: Sequence[Any], **options: Any) -> tuple[Any, int]:
    """Under `vmap` over images alone, the batches are one.

    Over kernels it is a convolution each on CPU, where XLA's grouped convolution has no fast gradients, and JAX's rule,
    a grouped convolution, elsewhere.
    """
    inputs, kernel = arrays
    axis, kernel_axis = axes
    if kernel_axis is None:
        inputs = jnp.moveaxis(inputs, axis, 0)
        y = _conv_p.bind(inputs.reshape(-1, *inputs.shape[2:]), kernel, **options)
        return y.reshape(*inputs.shape[:2], *y.shape[1:]), 0

    def on_cpu(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
        pairs = [x if a is None else jnp.moveaxis(x, a, 0) for x, a in ((inputs, axis), (kernel, kernel_axis))]
        count = pairs[1].shape[0]
        if axis is None:
            pairs[0] = jnp.broadcast_to(pairs[0][None], (count, *pairs[0].shape))
        if count > _MOST_KERNELS:
            return lax.map(lambda pair: _conv_p.bind(*pair, **options), tuple(pairs))
        return jnp.stack([_conv_p.bind(x, w, **options) for x, w in zip(*pairs, strict=True)])

    elsewhere = jax.vmap(partial(_elsewhere, **options), tuple(axes))
    return lax.platform_dependent(inputs, kernel, cpu=on_cpu, default=elsewhere), 0


def _abstract(inputs: Any, kernel: Any, *, options: ConvolutionOptions, turned: bool) -> Any:
    like = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (inputs, kernel))
    out = jax.eval_shape(partial(_elsewhere, options=options, turned=turned), *like)
    return inputs.update(shape=out.shape, dtype=out.dtype)


def _elsewhere(inputs: Any, kernel: Any, options: ConvolutionOptions, turned: bool) -> Any:
    return options.reference(inputs, _turned(kernel) if turned else kernel)


_conv_p.def_impl(jax.jit(_conv_p.bind, static_argnames=("options", "turned")))
_conv_p.def_abstract_eval(_abstract)
ad.defbilinear(_conv_p, _gradient_of_inputs, _gradient_of_kernel)
batching.primitive_batchers[_conv_p] = _batched
mlir.register_lowering(_conv_p, mlir.lower_fun(_elsewhere, multiple_results=False))
mlir.register_lowering(_conv_p, mlir.lower_fun(_on_cpu, multiple_results=False), platform="cpu")
