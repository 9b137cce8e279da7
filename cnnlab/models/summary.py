"""The layers of a network with shapes, parameters, multiply-adds and activation memory; no weight is allocated."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .costs import multiply_adds
from .registry import ModelInfo, model_info
from .watching import Call, dotted, watch


@dataclass(frozen=True)
class LayerSummary:
    """A row of a `Summary`: one call of a layer.

    Attributes:
        name: dotted name such as "layer1.0.conv1"; "" is the network itself, in which something is computed
            outside of all layers.
        kind: class of the layer.
        output_shape: `[batch, ...]`; empty where the layer is not called.
        parameters: trained numbers; of a layer that is called again, 0.
        multiply_adds: of convolutions and matrix products, for one image.
        activation_bytes: size of the output, for one image.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int


@dataclass(frozen=True)
class Summary:
    """The layers of a network in the order in which they are called; `str()` of it is a table.

    Attributes:
        name: of the network.
        image_shape: `[batch, height, width, channels]`, what the network was asked about.
        layers: one row for each call of a layer.
    """

    name: str
    image_shape: tuple[int, ...]
    layers: tuple[LayerSummary, ...]

    @property
    def parameters(self) -> int:
        """Trained numbers of the network."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of convolutions and matrix products for one image, forward."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes of the outputs of all layers for one image.

        Roughly what training keeps for the backward pass; ReLU, pooling and the like are no layers and count nothing.
        """
        return sum(layer.activation_bytes for layer in self.layers)

    def __str__(self) -> str:
        rows = [(row.name or "(network)", row.kind, _shape(row.output_shape), *_cells(row)) for row in self.layers]
        total = ("total", "", _shape(self.image_shape), *_cells(self))
        head = ("layer", "kind", "output", "parameters", "multiply-adds", "activation bytes")
        widths = [max(map(len, column)) for column in zip(head, *rows, total, strict=True)]
        rule = "  ".join("-" * width for width in widths)
        lines = [_line(head, widths), rule, *(_line(row, widths) for row in rows), rule, _line(total, widths)]
        title = f"{self.name} on images {_shape(self.image_shape)}; multiply-adds and activation bytes are per image"
        return "\n".join([title, "", *lines])


def summarize(
    model: str | nnx.Module,
    *,
    image_size: int | None = None,
    in_channels: int | None = None,
    batch: int = 1,
    **options: Any,
) -> Summary:
    """Tell the layers of a network with output shapes, parameters, multiply-adds and activation memory.

    The network is traced in evaluation mode with shapes in place of numbers: nothing is computed and no weight
    is allocated, so that it takes a second for any network.

    Args:
        model: a registered name, or a network.
        image_size: height and width of the images in pixels; by default those the architecture is meant for.
            It has to be given for a network.
        in_channels: channels of the images; by default 3.
        batch: number of images; it changes the shapes only.
        **options: of the named model, e.g. `num_classes=1000`.

    Raises:
        ValueError: an unknown name or option, images that the network does not take, or a network without
            `image_size`.

    Example:
        >>> import cnnlab
        >>> cnnlab.summarize("lenet").parameters
        264806
    """
    if isinstance(model, str):
        return summarize_info(model_info(model), image_size, in_channels, batch, **options)
    if options:
        raise ValueError(f"Expected options only with a model's name, got {', '.join(options)} with a network.")
    if image_size is None:
        raise ValueError("Expected the size of the network's images, got none; do give image_size=32 or the like.")
    return _summarize(type(model).__name__, model, image_size, in_channels, batch)


def summarize_info(
    info: ModelInfo, image_size: int | None = None, in_channels: int | None = None, batch: int = 1, **options: Any
) -> Summary:
    """Summarise a registered model; arguments and result as `summarize`."""
    size = info.input_size if image_size is None else image_size
    channels = info.options.get("in_channels") if in_channels is None else in_channels
    given = {"image_size": size, "in_channels": channels}
    options |= {key: value for key, value in given.items() if key in info.options}

    def build() -> nnx.Module:
        rngs = nnx.Rngs(0)
        rngs.default = _OneKey(0, tag="default")  # pyright: ignore[reportAttributeAccessIssue]
        return info.create(rngs=rngs, **options)

    return _summarize(info.name, nnx.eval_shape(build), size, channels, batch)


class _OneKey(nnx.RngStream):
    """A stream of random keys that are all the same, which do for shapes.

    Flax' own counts them, which takes time in a trace that grows with the square of the number of layers.
    """

    def __call__(self) -> jax.Array:
        return self.key[...]


def _summarize(name: str, network: nnx.Module, size: int, channels: int | None, batch: int) -> Summary:
    if min(size, batch) < 1:
        raise ValueError(f"Expected images of at least 1 pixel and a batch of at least 1, got {size} and {batch}.")
    shape = (batch, size, size, 3 if channels is None else channels)
    return Summary(name, shape, tuple(_layers(network, shape)))


def _layers(network: nnx.Module, image_shape: tuple[int, ...]) -> Iterator[LayerSummary]:
    """The rows: calls of modules without modules inside, and of others that compute or hold something of their own."""
    graph, state = nnx.split(network)
    calls: list[tuple[Call, tuple[int, ...], int]] = []

    def run(state: Any, images: jax.Array) -> None:
        copy = nnx.merge(graph, state)
        copy.eval()
        for call in watch(copy, images):
            outputs = jax.tree.leaves(call.output)
            shape = outputs[0].shape if outputs else ()
            calls.append((call, shape, sum(x.size * x.dtype.itemsize for x in outputs)))

    counts = multiply_adds(jax.make_jaxpr(run)(state, jax.ShapeDtypeStruct(image_shape, jnp.float32)))
    kinds = {dotted(path): type(module).__name__ for path, module in nnx.iter_modules(network)}
    parents = {"", *(name[:i] for name in kinds for i, letter in enumerate(name) if letter == ".")}
    parameters = _own_parameters(network, kinds)
    batch = image_shape[0]
    for index, (call, shape, size) in enumerate(calls):
        own = parameters.pop(call.name, 0)
        if call.name not in parents or own or counts[index]:
            yield LayerSummary(call.name, call.kind, shape, own, counts[index] // batch, size // batch)
    for name, own in parameters.items():
        yield LayerSummary(name, kinds[name], (), own, 0, 0)


def _own_parameters(network: nnx.Module, modules: Container[str]) -> dict[str, int]:
    """Trained numbers by the module that holds them itself."""
    own: dict[str, int] = {}
    for path, parameter in nnx.to_flat_state(nnx.state(network, nnx.Param)):
        end = next(end for end in range(len(path) - 1, -1, -1) if dotted(path[:end]) in modules)
        name = dotted(path[:end])
        own[name] = own.get(name, 0) + sum(leaf.size for leaf in jax.tree.leaves(parameter))
    return own


def _cells(row: LayerSummary | Summary) -> tuple[str, str, str]:
    return f"{row.parameters:,}", f"{row.multiply_adds:,}", f"{row.activation_bytes:,}"


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) if shape else "not called"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Words to the left, numbers to the right."""
    aligned = (cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(cells, widths, strict=True)))
    return "  ".join(aligned)
