"""The names and layouts that a network's arrays have in files: those of its twins in PyTorch, and its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flax import nnx

from .alexnet import AlexNet
from .resnet import ResNet
from .vgg import VGG

Path = tuple[Any, ...]
Orders = tuple[np.ndarray | None, ...]

OWN = "own"  # whose names those are that need no library
WRAPPED = "network"  # what wrappers such as `Standardized` call the network inside

_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_KERNEL = (2, 3, 1, 0)  # OIHW to HWIO


@dataclass(frozen=True)
class Entry:
    """One array: where it is in the network, and how a file holds it.

    Attributes:
        path: where in `nnx.state` of the network.
        own: shape in the network.
        shape: shape in the file.
        split: shape with all axes of meaning apart, in the order of the file.
        axes: the axes of `split` in the order of the network.
        orders: for the first axes of `split`, which channel of the file each of ours is; None where they agree.
    """

    path: Path
    own: tuple[int, ...]
    shape: tuple[int, ...]
    split: tuple[int, ...]
    axes: tuple[int, ...]
    orders: Orders = ()

    def decode(self, array: np.ndarray) -> np.ndarray:
        """Turn what the file holds into what the network holds."""
        return _reordered(array.reshape(self.split), self.orders).transpose(self.axes).reshape(self.own)

    def encode(self, array: np.ndarray) -> np.ndarray:
        """Turn what the network holds into what the file holds."""
        apart = array.reshape([self.split[axis] for axis in self.axes]).transpose(np.argsort(self.axes))
        back = tuple(None if order is None else np.argsort(order) for order in self.orders)
        return _reordered(apart, back).reshape(self.shape)


@dataclass(frozen=True)
class Naming:
    """One way to name the arrays of a network.

    Attributes:
        name: whose names these are.
        entries: the arrays by their name in a file.
        head: name of the last layer, which may be absent.
    """

    name: str
    entries: Mapping[str, Entry]
    head: str

    def in_head(self, key: str) -> bool:
        """Whether an array with this name belongs to the last layer."""
        return key.startswith(f"{self.head}.")


@dataclass(frozen=True)
class _Twin:
    """How a library names the modules of a network: the pure function, and the layers that are stored otherwise.

    Attributes:
        name: the library.
        rename: a module's path in our network, such as "layer1.0.conv1", to its name there.
        flattened: path of the dense layer after the flattening, which PyTorch does with channels first.
        as_convolutions: dense layers that the library keeps as convolutions.
        orders: channels that the library has in another order: of the outputs and of the inputs of a module.
    """

    name: str
    rename: Callable[[str], str]
    flattened: str = ""
    as_convolutions: tuple[str, ...] = ()
    orders: Mapping[str, Orders] = field(default_factory=dict)


def arrays_of(model: nnx.Module) -> dict[Path, nnx.Variable]:
    """Return all arrays of a network by path but for random keys, which are no weights."""
    return dict(nnx.to_flat_state(nnx.state(model, nnx.Not(nnx.RngState))))


def namings(model: nnx.Module) -> list[Naming]:
    """Return the ways to name the arrays of a network, those of its twins first.

    Its own names (`OWN`) follow; where it is a wrapper such as `Standardized`, those of the network inside, too.
    """
    levels = [model]
    while isinstance(inside := getattr(levels[-1], WRAPPED, None), nnx.Module):
        levels.append(inside)
    depth = len(levels) - 1
    twins = [_of_twin(twin, levels[-1], (WRAPPED,) * depth) for twin in _twins(levels[-1])]
    return [*twins, *(_own(level, outside, depth - outside) for outside, level in enumerate(levels))]


def _own(network: nnx.Module, outside: int, inside: int) -> Naming:
    """The own names of a network that has so many wrappers around it, and is itself so many around the innermost."""
    entries = {}
    for path, variable in arrays_of(network).items():
        shape = variable.get_value().shape
        where = ((WRAPPED,) * outside) + path
        entries[".".join(map(str, path))] = Entry(where, shape, shape, shape, tuple(range(len(shape))))
    return Naming(OWN, entries, ".".join([WRAPPED] * inside + ["head"]))


def _of_twin(twin: _Twin, network: nnx.Module, prefix: Path) -> Naming:
    entries = {}
    for path, variable in arrays_of(network).items():
        *parents, leaf = map(str, path)
        module, own = ".".join(parents), variable.get_value().shape
        if leaf == "kernel" and len(own) == 4:
            split = tuple(own[axis] for axis in np.argsort(_KERNEL))
            shape, axes = split, _KERNEL
        elif leaf == "kernel" and module == twin.flattened:
            channels = network.convs[-1].out_features  # pyright: ignore[reportAttributeAccessIssue]
            side = math.isqrt(own[0] // channels)
            split, axes = (own[1], channels, side, side), _KERNEL
            shape = split if module in twin.as_convolutions else own[::-1]
        elif leaf == "kernel":
            split, axes = own[::-1], (1, 0)
            shape = (*split, 1, 1) if module in twin.as_convolutions else split
        else:
            shape, split, axes = own, own, tuple(range(len(own)))
        name = f"{twin.rename(module)}.{_LEAVES.get(leaf, leaf)}"
        orders = twin.orders.get(module, ())[: len(split)]
        entries[name] = Entry((*prefix, *path), own, shape, split, axes, orders)
    return Naming(twin.name, entries, twin.rename("head"))


def _reordered(array: np.ndarray, orders: Orders) -> np.ndarray:
    for axis, order in enumerate(orders):
        array = array if order is None else np.take(array, order, axis)
    return array


def _twins(network: nnx.Module) -> list[_Twin]:
    """The libraries that have this network, the one whose names are written first."""
    if isinstance(network, ResNet):
        return _resnet_twins(network)
    if isinstance(network, VGG):
        return _vgg_twins(network)
    if isinstance(network, AlexNet) and not network.normalized:
        one_tower = all(conv.feature_group_count == 1 for conv in network.convs)
        return [_torchvision_alexnet()] if one_tower and len(network.hidden) == 2 else []
    return []


def _resnet_twins(network: ResNet) -> list[_Twin]:
    """Libraries for ImageNet call the head `fc`; re-implementations for CIFAR `linear`, and projections `shortcut`.

    None has these blocks with squeeze-and-excite.
    """
    if any(block.squeeze_excite is not None for _, block in _blocks(network)):
        return []

    def for_small_images(module: str) -> str:
        return "linear" if module == "head" else module.replace(".downsample.", ".shortcut.")

    imagenet = _Twin("torchvision and timm", lambda module: "fc" if module == "head" else module)
    cifar = _Twin("PyTorch's CIFAR networks", for_small_images, orders=_orders_of_channels(network))
    return [cifar, imagenet] if network.num_stages == 3 else [imagenet, cifar]


def _orders_of_channels(network: ResNet) -> dict[str, Orders]:
    """How shortcuts without parameters (A) order the channels in PyTorch's CIFAR networks.

    Where channels are added, these put half of the zeros before the old channels and half behind; ours puts all of them
    behind. It is the same function when the channels that the shortcuts carry change places in all that writes or reads
    them: the last convolution and BatchNorm of a block, the first convolution of the next, and the head.
    """
    orders: dict[str, Orders] = {}
    carried: np.ndarray | None = None
    for name, block in _blocks(network):
        old, added = block.conv1.in_features, block.out_features - block.conv1.in_features
        if not block.skip or block.downsample is not None:  # no shortcut, or one whose channels are learnt
            carried = None
        elif added or carried is not None:
            orders[f"{name}.conv1"] = (None, carried)
            before, kept = added // 2, np.arange(old) if carried is None else carried
            carried = np.concatenate([before + kept, np.arange(before), np.arange(before + old, old + added)])
            last = "3" if hasattr(block, "conv3") else "2"
            orders[f"{name}.conv{last}"] = orders[f"{name}.bn{last}"] = (carried,)
    return {**orders, "head": (None, carried)}


def _blocks(network: ResNet) -> Iterator[tuple[str, Any]]:
    for stage in range(1, network.num_stages + 1):
        for index, block in enumerate(getattr(network, f"layer{stage}")):
            yield f"layer{stage}.{index}", block


def _vgg_twins(network: VGG) -> list[_Twin]:
    """Modules are counted in one sequence: convolution, BatchNorm if there is one, ReLU; pooling after each stage."""
    features, place, index = {}, 0, 0
    for depth in network.depths:
        for _ in range(depth):
            features[f"convs.{index}"] = f"features.{place}"
            if network.norms:
                features[f"norms.{index}"] = f"features.{place + 1}"
            place, index = place + (3 if network.norms else 2), index + 1
        place += 1
    if not network.hidden:
        return [_by_table("PyTorch's CIFAR networks", {**features, "head": "classifier"})]
    hidden = {f"hidden.{i}": f"classifier.{3 * i}" for i in range(len(network.hidden))}  # ReLU and dropout between
    torchvision = {**features, **hidden, "head": f"classifier.{3 * len(hidden)}"}
    timm = {**features, **{f"hidden.{i}": f"pre_logits.fc{i + 1}" for i in range(len(hidden))}, "head": "head.fc"}
    return [
        _by_table("torchvision", torchvision, flattened="hidden.0"),
        _by_table("timm", timm, flattened="hidden.0", as_convolutions=tuple(hidden)),
    ]


def _torchvision_alexnet() -> _Twin:
    """ReLU after each convolution, pooling after the first, second and fifth; dropout before each hidden layer."""
    features = {f"convs.{index}": f"features.{place}" for index, place in enumerate((0, 3, 6, 8, 10))}
    dense = {"hidden.0": "classifier.1", "hidden.1": "classifier.4", "head": "classifier.6"}
    return _by_table("torchvision", {**features, **dense}, flattened="hidden.0")


def _by_table(name: str, table: Mapping[str, str], **options: Any) -> _Twin:
    return _Twin(name, lambda module: table.get(module, module), **options)
