"""The roofline of a training step: what it has to do, over what a matrix product and a copy reach in the same rounds.

Operations and bytes are counted from the network (`cnnlab.summarize`), so that they do not depend on machine or
compiler. XLA's own account (`cost_analysis` of the compiled step) would not do: it counts the body of a loop once,
where cnnlab's convolutions on CPU go through the batch in loops, and its bytes add up the operands of every
instruction, whether they come from memory or from a cache.

Operations: two per multiply-add of convolutions and matrix products, three times (forward, gradients of inputs and of
parameters), less the gradient of the images, which nobody needs. Padded zeros count as in the papers, other arithmetic
does not; work that a lowering adds is none of the network's.

Bytes: the least that a step moves which goes through memory layer by layer. Each output of a layer is written and read
forward; backward it is read again and its gradient is written and read. A parameter is read by both passes and by the
update, and written; its gradient is written and read; so is its momentum. All else (ReLU, sums, pooling, normalisation
beyond its output) counts as fused. What stays in a cache between layers moves less, a real program mostly more.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from measure import summary, table

from cnnlab.models import Summary

SCRIPT = "roofline_jax.py"
# By device: side of the matrices (on CPU a product of 0.1 to 0.3 s on two cores) and bytes of the array that is copied,
# several times what the caches hold.
PEAKS = {"cpu": {"side": 2560, "array_bytes": 2**28}, "gpu": {"side": 8192, "array_bytes": 2**30}}
NEAR = 0.4  # a step that reaches less of either peak is bound by neither
_TOUCHES_OF_OUTPUTS = 2 + 3  # written, read; backward read, gradient written, gradient read
_TOUCHES_OF_PARAMETERS = 4 + 2 + 2  # itself: forward, backward, update and its result; gradient; momentum
_PARAMETER_BYTES = 4  # float32, whatever the network computes in


class Work(NamedTuple):
    """What a training step has to do: floating-point operations, and the least bytes from and to memory."""

    operations: int
    bytes: int


def count_work(costs: Summary, batch: int) -> Work:
    """Count the work of a training step with momentum; the module's docstring says how.

    Args:
        costs: the network, in the dtype it computes in.
        batch: images of a step, which come as uint8.
    """
    first = next((layer.multiply_adds for layer in costs.layers if layer.multiply_adds), 0)
    operations = 2 * batch * (3 * costs.multiply_adds - first)
    _, height, width, channels = costs.image_shape
    images = 2 * batch * height * width * channels  # read by the first layer and by the gradient of its kernel
    outputs = _TOUCHES_OF_OUTPUTS * batch * costs.activation_bytes
    return Work(operations, images + outputs + _TOUCHES_OF_PARAMETERS * _PARAMETER_BYTES * costs.parameters)


def roofline(
    work: Work, steps_per_second: Sequence[float] | None, sizes: Mapping[str, int], peaks: list[dict[str, Any]] | str
) -> dict[str, Any]:
    """Return what the JSON holds of a network's roofline: work, rates, peaks, shares and what bounds the step.

    A rate is divided by the best of the peak's repeats in the same round, so that what slows the machine cancels.

    Args:
        work: of a step.
        steps_per_second: one value per round; None where the step was not measured.
        sizes: of the peaks, as in `PEAKS`.
        peaks: the answers of `roofline_jax.py`, one per round, or why there are none.
    """
    measured: dict[str, Any] = {"error": peaks}
    if not isinstance(peaks, str):
        operations, moved = 2 * sizes["side"] ** 3, 2 * sizes["array_bytes"]
        measured = {
            "product": {"side": sizes["side"], **_rates(operations, [answer["product"] for answer in peaks])},
            "copy": {"array_bytes": sizes["array_bytes"], **_rates(moved, [answer["copy"] for answer in peaks])},
        }
    found: dict[str, Any] = {**work._asdict(), "peaks": measured}
    if steps_per_second is None:
        return found
    for kind, amount, peak in (("operations", work.operations, "product"), ("bytes", work.bytes, "copy")):
        rates = [amount * steps for steps in steps_per_second]
        found[f"{kind}_per_second"] = summary(rates)
        if "error" not in measured:
            best = measured[peak]["best"]["values"]
            found[f"{peak}_share"] = summary([rate / most for rate, most in zip(rates, best, strict=True)])
    if "error" not in measured:
        found["bound"] = name_bound(found["product_share"]["median"], found["copy_share"]["median"])
    return found


def _rates(amount: int, rounds: list[list[float]]) -> dict[str, Any]:
    """Amounts per second, by rounds: the best and the median of the repeats of each."""
    chosen = {"best": min, "median": statistics.median}
    return {name: summary([amount / choose(seconds) for seconds in rounds]) for name, choose in chosen.items()}


def name_bound(product_share: float, copy_share: float) -> str:
    """Name the nearer roof, or neither where both are far."""
    if max(product_share, copy_share) < NEAR:
        return "neither (overheads)"
    return "arithmetic" if product_share >= copy_share else "memory"


def roofline_table(result: dict[str, Any]) -> str:
    """Return a row for each network with the medians of the rounds, and the peaks below.

    Args:
        result: the content of the JSON of `training_steps.py`; what an older file lacks is a dash.
    """
    header = ["network", "GFLOP a step", "GFLOP/s", "of product", "at the aim", "GB a step", "GB/s", "of copy", "bound"]
    entries = {name: entry.get("roofline", {}) for name, entry in result["networks"].items()}
    rows = [
        [
            name,
            *(_amount(of.get("operations")), _median(of.get("operations_per_second")), _share(of.get("product_share"))),
            _at_the_aim(result["networks"][name]),
            *(_amount(of.get("bytes")), _median(of.get("bytes_per_second")), _share(of.get("copy_share"))),
            of.get("bound", "-"),
        ]
        for name, of in entries.items()
    ]
    peaks = [of["peaks"] for of in entries.values() if "error" not in of.get("peaks", {"error": "not measured"})]
    return "\n\n".join([table(header, rows), *([_tell_peaks(peaks)] if peaks else [])])


def _at_the_aim(entry: dict[str, Any]) -> str:
    """The share of the product's rate that the step would have to reach to be as fast as it is meant to be."""
    share, ours = entry.get("roofline", {}).get("product_share"), entry["contenders"].get("cnnlab", {})
    if share is None or "ratio_to_best_torch" not in ours:
        return "-"
    ratios = ours["ratio_to_best_torch"]["values"]
    shares = [of * entry["target"] / ratio for of, ratio in zip(share["values"], ratios, strict=True)]
    return f"{100 * statistics.median(shares):.0f} %"


def _tell_peaks(peaks: list[dict[str, Any]]) -> str:
    """One line: what the peaks were, from the least to the largest network's median."""
    product, copy = peaks[0]["product"], peaks[0]["copy"]
    bests = {name: sorted(of[name]["best"]["median"] for of in peaks) for name in ("product", "copy")}
    reached = {name: " to ".join(dict.fromkeys(_giga(v) for v in (of[0], of[-1]))) for name, of in bests.items()}
    return (
        f"matrix product of {product['side']} x {product['side']}: {reached['product']} GFLOP/s; "
        f"copy of {copy['array_bytes'] // 2**20} MiB, read and written: {reached['copy']} GB/s"
    )


def _giga(value: float) -> str:
    return f"{value / 1e9:,.0f}" if value >= 1e11 else f"{value / 1e9:.1f}" if value >= 1e9 else f"{value / 1e9:.2f}"


def _amount(value: int | None) -> str:
    return "-" if value is None else _giga(value)


def _median(values: dict[str, Any] | None) -> str:
    return "-" if values is None else _giga(values["median"])


def _share(values: dict[str, Any] | None) -> str:
    return "-" if values is None else f"{100 * values['median']:.0f} %"
