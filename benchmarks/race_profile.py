"""Where the time of a run goes: one run under JAX's profiler, and the seconds of each kind of kernel on the device."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
from measure import BenchmarkError, table

SHOWN = 15
_NUMBER = re.compile(r"[._]\d+$")


def profile(racer: Any, folder: Path) -> dict[str, Any]:
    """Run seed 0 once under the profiler, which writes its trace into the folder.

    The trace also holds what is outside the clock: making the weights, and the count without test-time augmentation.

    Returns:
        `run`, as of `Racer.run`, slower than one without the profiler; `kernels`, seconds on the device by name, the
        longest first, empty on CPU.
    """
    with jax.profiler.trace(str(folder)):
        run = racer.run(0)
    traces = sorted(folder.glob("**/*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    if not traces:
        raise BenchmarkError(f"Expected a trace of the profiler in {folder}, got none.")
    return {"run": run, "kernels": kernel_seconds(jax.profiler.ProfileData.from_file(str(traces[-1])).planes)}


def kernel_seconds(planes: Iterable[Any]) -> dict[str, float]:
    """Return the seconds of kernels and copies on all streams of the GPUs by name, the longest first.

    Numbers that the compiler puts behind a name (`fusion.12`, `loop_add_fusion_3`) are left out, so that operations of
    a kind stand together.
    """
    found: Counter[str] = Counter()
    for plane in planes:
        if not plane.name.startswith("/device:GPU"):
            continue
        for line in plane.lines:
            if line.name.startswith("Stream"):
                for event in line.events:
                    found[_NUMBER.sub("", event.name)] += event.duration_ns
    return {name: nanoseconds / 1e9 for name, nanoseconds in found.most_common()}


def profile_report(title: str, found: Mapping[str, Any]) -> str:
    """Return the parts of the run and its longest kernels as text."""
    run, kernels = found["run"], found["kernels"]
    parts = [[part, f"{run[f'{part}_seconds']:.3f}", ""] for part in ("prepare", "train", "evaluate")]
    rows = [["the whole run, by the clock", f"{run['seconds']:.3f}", ""], *parts]
    busy = sum(kernels.values())
    if kernels:
        rows += [["on the device, all kernels", f"{busy:.3f}", "100 %"]]
        longest = list(kernels.items())[:SHOWN]
        rows += [[name[:80], f"{seconds:.3f}", f"{seconds / busy:.1%}".replace("%", " %")] for name, seconds in longest]
        rest = busy - sum(seconds for _, seconds in longest)
        rows += [[f"{len(kernels) - len(longest)} others", f"{rest:.3f}", f"{100 * rest / busy:.1f} %"]]
    return f"{title}\n\n{table(['under the profiler', 'seconds', 'of all kernels'], rows)}"
