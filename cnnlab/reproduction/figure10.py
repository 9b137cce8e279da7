"""Figure 10: VGG-19, the plain network of 34 layers and ResNet-34 side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flax import nnx

from cnnlab.layers import Conv, ResidualBlock
from cnnlab.models import LayerSummary, create_model, summarize

from .cells import millions
from .network_drawing import draw_networks
from .results import Results
from .study import Study, Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SIDE, _CLASSES = 224, 1000
_TOLERANCE, _SHARE_TOLERANCE = 0.02, 0.01


@dataclass(frozen=True)
class _Claim:
    """What is published of a network; parameters are those that torchvision counts, None where it has no such one."""

    title: str
    layers: int
    multiply_adds: float
    parameters: int | None


_CLAIMS = {
    "vgg19": _Claim("VGG-19", 19, 19.6e9, 143_667_240),
    "plain34": _Claim("34-layer plain", 34, 3.6e9, None),
    "resnet34": _Claim("34-layer residual", 34, 3.6e9, 21_797_672),
}
_SHARE = 0.18  # of VGG-19's multiply-adds


class Figure10(Study):
    """Layers, parameters and multiply-adds of the three networks, counted in the networks of cnnlab; nothing trains."""

    name = "figure10"
    title = "Figure 10: VGG-19, its plain successor and ResNet-34"
    claim = (
        "A plain and a residual network of 34 layers take 3.6 G multiply-adds, 18 % of the 19.6 G of VGG-19 with its "
        "19 layers."
    )
    source = (
        "He et al. 2015, section 3.3 and figure 3 (the thesis' figure 10), which calls multiply-adds FLOPs; "
        "parameters: torchvision's vgg19 and resnet34"
    )
    shortened = "all of it, since nothing is trained"
    quick_minutes = 0.5
    full_time = "seconds on a CPU"
    figures = {"networks": "The three networks layer by layer, with the multiply-adds of each layer"}

    def measure(self, results: Results) -> dict[str, Any]:
        """Return of each network its totals, its layers in order and its skip connections; see `count_network`."""
        return {"networks": {name: count_network(name) for name in _CLAIMS}}

    def table(self, results: Results) -> Table:
        """Return a line per network: published and counted layers and multiply-adds, and parameters."""
        head = ("network", "layers (paper)", "multiply-adds (paper)", "to VGG-19", "parameters (torchvision)")
        networks = results.measured.get("networks", {})
        return head, [_line(network, _CLAIMS[name], networks) for name, network in networks.items()]

    def verdicts(self, results: Results) -> Sequence[Verdict]:
        """Judge layers, parameters, multiply-adds and their share."""
        networks = results.measured.get("networks", {})
        layers = {name: claim.layers for name, claim in _CLAIMS.items()}
        parameters = {name: claim.parameters for name, claim in _CLAIMS.items() if claim.parameters is not None}
        costs = {name: claim.multiply_adds for name, claim in _CLAIMS.items()}
        shares = {name: _SHARE for name in _CLAIMS if name != "vgg19"}
        found = {name: {**network, "share": _share(network, networks)} for name, network in networks.items()}
        return [
            _judge(
                "VGG-19, plain 34 and ResNet-34 have 19, 34 and 34 weighted layers.",
                "exactly; projections on skip connections do not count",
                "weighted_layers", layers, found, 0.0,
            ),
            _judge(
                "VGG-19 and ResNet-34 have torchvision's parameters.",
                "exactly",
                "parameters", parameters, found, 0.0,
            ),
            _judge(
                "VGG-19, plain 34 and ResNet-34 take 19.6 G, 3.6 G and 3.6 G multiply-adds.",
                "each within 2 % of the paper's rounded number; those of convolutions and dense layers count",
                "multiply_adds", costs, found, _TOLERANCE,
            ),
            _judge(
                "The networks of 34 layers take 18 % of VGG-19's multiply-adds.",
                "each within one point of 18 %",
                "share", shares, found, _SHARE_TOLERANCE / _SHARE,
            ),
        ]  # fmt: skip

    def draw(self, results: Results) -> dict[str, Figure]:
        """Return the networks side by side."""
        networks = results.measured.get("networks")
        return {"networks": draw_networks(list(networks.values()))} if networks else {}


def count_network(name: str) -> dict[str, Any]:
    """Return what a network is made of, as plain values.

    Args:
        name: of a registered network for 224 pixels.

    Returns:
        `title`, `parameters`, `multiply_adds`, `weighted_layers`; `layers`, each with `kind` ("conv", "dense", "pool",
        or "mean" over the whole map), `width` (filters or neurons), `side` (of its output in pixels), `multiply_adds`
        and, for "conv", `kernel` and `stride`; `skips`, each with the places among `layers` that it leaves `from` and
        leads `to`, and whether the shape `changes`. Projections on skip connections are in the totals alone.
    """
    summary = summarize(name, num_classes=_CLASSES, image_size=_SIDE)
    network = nnx.eval_shape(lambda: create_model(name, num_classes=_CLASSES))
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(network)}
    blocks = {path: module for path, module in modules.items() if isinstance(module, ResidualBlock) and module.skip}
    layers: list[dict[str, Any]] = []
    owners: list[str] = []  # of each layer the block it is in, or ""
    for row in summary.layers:
        module = modules[row.name]
        block = next((path for path in blocks if row.name.startswith(f"{path}.")), "")
        if not isinstance(module, Conv | nnx.Linear) or (block and row.name.startswith(f"{block}.downsample.")):
            continue
        layer = _layer(row, module)
        if layers and (pooled := _pooled(layers[-1], layer, module)):
            layers.append(pooled)
            owners.append("")
        layers.append(layer)
        owners.append(block)
    skips = []
    for path, block in blocks.items():
        places = [place for place, owner in enumerate(owners) if owner == path]
        skips.append({"from": places[0] - 1, "to": places[-1], "changes": block.stride != 1})
    return {
        "title": _CLAIMS[name].title,
        "parameters": summary.parameters,
        "multiply_adds": summary.multiply_adds,
        "weighted_layers": sum(layer["kind"] in ("conv", "dense") for layer in layers),
        "layers": layers,
        "skips": skips,
    }


def _layer(row: LayerSummary, module: Conv | nnx.Linear) -> dict[str, Any]:
    layer: dict[str, Any] = {"kind": "dense", "width": row.output_shape[-1], "side": 1}
    if isinstance(module, Conv):
        strides: Any = module.strides
        stride = strides if isinstance(strides, int) else strides[0]
        layer |= {"kind": "conv", "side": row.output_shape[1], "kernel": module.kernel.shape[0], "stride": stride}
    return {**layer, "multiply_adds": row.multiply_adds}


def _pooled(before: dict[str, Any], layer: dict[str, Any], module: Conv | nnx.Linear) -> dict[str, Any] | None:
    """Return the pooling between two layers, which is no layer itself; None where the map keeps its size."""
    if before["kind"] == "dense":
        return None
    if isinstance(module, Conv):
        side = layer["side"] * layer["stride"]
    else:
        side = math.isqrt(module.in_features // before["width"])
    if side == before["side"]:
        return None
    return {"kind": "mean" if side == 1 else "pool", "width": before["width"], "side": side, "multiply_adds": 0}


def _share(network: Mapping[str, Any], networks: Mapping[str, Any]) -> float:
    return network["multiply_adds"] / networks["vgg19"]["multiply_adds"]


def _line(network: Mapping[str, Any], claim: _Claim, networks: Mapping[str, Any]) -> list[str]:
    published = "-" if claim.parameters is None else f"{claim.parameters:,}"
    return [
        network["title"],
        f"{network['weighted_layers']} ({claim.layers})",
        f"{network['multiply_adds']:,} ({millions(claim.multiply_adds)})",
        f"{100 * _share(network, networks):.1f} %",
        f"{network['parameters']:,} ({published})",
    ]


def _judge(
    claim: str, rule: str, key: str, expected: Mapping[str, float], found: Mapping[str, Any], tolerance: float
) -> Verdict:
    """Judge numbers of several networks, each within a share of what is expected; who chose it could know them."""
    afterwards = tolerance > 0
    if not found:
        return Verdict(claim, rule, afterwards=afterwards)
    numbers = {name: found[name][key] for name in expected}
    measured = ", ".join(f"{_CLAIMS[name].title} {_number(number)}" for name, number in numbers.items())
    held = all(abs(numbers[name] - value) <= tolerance * value for name, value in expected.items())
    return Verdict.of(claim, rule, measured, held, afterwards=afterwards)


def _number(value: float) -> str:
    if value < 1:
        return f"{100 * value:.1f} %"
    return f"{value:,}" if value < 1e9 else millions(value)
