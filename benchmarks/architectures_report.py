"""The result of `architectures.py` as a table on a terminal, a table in Markdown, and a chart."""

from __future__ import annotations

import itertools
import textwrap
from pathlib import Path
from typing import Any

from measure import BenchmarkError, markdown_table, table

UNITS = (
    "Image: side in pixels. Parameters and multiply-adds per image: millions. Compile: seconds for the training step. "
    "Forward and training: images per second, median of the rounds. Torch: the same network in PyTorch, {mode}. "
    "Against {mode} torch: training speed divided by PyTorch's in the same round, median (least to largest). "
    "Memory, in MB: {memory}."
)
_MEMORY = {
    "cpu": "by how much the resident memory of the process exceeded, at most while the passes ran, what it was before "
    "the network was built, compiled programs included",
    "gpu": "the most that was allocated at once, by JAX's allocator since the process began, compilation included, by "
    "PyTorch's in the passes",
}


def header(settings: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of the columns."""
    ours = ("network", "image", "parameters", "multiply-adds", "compile", "forward", "training", "memory")
    return (*ours, "torch forward", "torch training", "torch memory", f"against {_mode(settings)} torch")


def _mode(settings: dict[str, Any]) -> str:
    return "compiled" if settings["torch_compile"] else "eager"


def describe_run(result: dict[str, Any]) -> str:
    """Return one line on a result: hardware, versions, rounds."""
    env, settings = result["environment"], result["settings"]
    hardware = env["device_kind"] if settings["device"] == "gpu" else f"{env['cpu']}, {settings['threads']} threads"
    torch = f", torch {env['torch']} ({_mode(settings)})" if "torch" in settings["contenders"] else ""
    found = [f"{entry['batch_size']} of {entry['image_size']} px" for entry in result["architectures"].values()]
    return (
        f"{hardware}; Python {env['python']}, jax {env['jax']}, flax {env['flax']}{torch}; {settings['dtype']}; "
        f"batches of {', '.join(dict.fromkeys(found))}; {settings['rounds']} rounds; {env['started'][:10]}"
    )


def rows(result: dict[str, Any]) -> list[list[str]]:
    """Return the cells of the table."""
    return [_row(name, entry) for name, entry in result["architectures"].items()]


def _row(name: str, entry: dict[str, Any]) -> list[str]:
    ours, torch = entry.get("cnnlab", {}), entry.get("torch", {})
    ratio = ours.get("ratio_to_torch")
    return [
        name,
        str(entry["image_size"]),
        f"{entry['parameters'] / 1e6:.2f}" if "parameters" in entry else "-",
        f"{entry['multiply_adds'] / 1e6:,.1f}" if "multiply_adds" in entry else "-",
        f"{ours['compile_seconds']:.1f}" if "compile_seconds" in ours else "-",
        *_measured(ours),
        *_measured(torch),
        "{median:.2f} ({min:.2f} to {max:.2f})".format(**ratio) if ratio else "-",
    ]


def _measured(side: dict[str, Any]) -> list[str]:
    if "error" in side:
        return ["failed"] * 3
    if not side:
        return ["-"] * 3
    speeds = [side[f"{kind}_images_per_second"]["median"] for kind in ("forward", "train")]
    return [*(f"{v:,.0f}" if v >= 100 else f"{v:.1f}" for v in speeds), f"{side['peak_bytes'] / 1e6:,.0f}"]


def overview(result: dict[str, Any]) -> str:
    """Return the table for a terminal, and what failed."""
    failed = [
        f"{name}, {side}: {entry[side]['error']}"
        for name, entry in result["architectures"].items()
        for side in ("cnnlab", "torch")
        if "error" in entry.get(side, {})
    ]
    return "\n".join([table(header(result["settings"]), rows(result)), *(["", "failed:", *failed] if failed else [])])


def markdown(result: dict[str, Any], chart: str | None = None) -> str:
    """Return the table for a page, under the hardware and versions it was measured with.

    Args:
        result: the content of the JSON file.
        chart: the path of the chart as seen from the page, which shows it below the table then.
    """
    settings = result["settings"]
    units = UNITS.format(mode=_mode(settings), memory=_MEMORY[settings["device"]])
    image = [] if chart is None else [f"![Training speed of the architectures over their multiply-adds]({chart})"]
    return "\n\n".join([describe_run(result), units, markdown_table(header(settings), rows(result)), *image])


def draw_chart(result: dict[str, Any], path: Path) -> None:
    """Draw training images/s over multiply-adds, the area of a point its parameters, small and large images apart.

    Raises:
        BenchmarkError: nothing was measured.
    """
    from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

    from cnnlab.report.style import CYCLE, SOFT, drawing_style, new_figure, save_figure

    entries = {
        name: (entry["multiply_adds"], entry["cnnlab"]["train_images_per_second"]["median"], entry["parameters"], entry)
        for name, entry in result["architectures"].items()
        if "train_images_per_second" in entry.get("cnnlab", {})
    }
    if not entries:
        raise BenchmarkError("Expected at least one measured architecture, got none; do measure one.")
    sizes = sorted({entry["image_size"] for *_, entry in entries.values()})
    kinds = list(dict.fromkeys(map(_kind, entries)))
    colors = dict(zip(kinds, itertools.cycle((*CYCLE, SOFT)), strict=False))
    with drawing_style():
        inches = 5.6 * len(sizes)
        figure = new_figure(inches, 5.2)
        for axes, size in zip(figure.subplots(1, len(sizes), squeeze=False)[0], sizes, strict=True):
            points = {name: point for name, point in entries.items() if point[3]["image_size"] == size}
            axes.set(xscale="log", yscale="log", title=f"{size} x {size} pixels")
            axes.set(xlabel="multiply-adds per image, forward", ylabel="training, images per second")
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter(EngFormatter(sep=" "))
                axis.set_minor_locator(NullLocator())
            axes.grid(True)
            axes.tick_params(labelsize=8)
            for name, (cost, speed, parameters, _) in points.items():
                area = 10 + 1.5e-6 * parameters
                axes.scatter(cost, speed, s=area, color=colors[_kind(name)], alpha=0.75, edgecolor="white", lw=0.5)
            axes.margins(x=0.25, y=0.12)
            _label(figure, axes, {name: point[:2] for name, point in points.items()})
        caption = f"The area of a point grows with the number of parameters. {describe_run(result)}"
        caption = textwrap.fill(caption, int(18 * inches))  # so many letters of this size fit in an inch
        figure.supxlabel(caption, fontsize=7.5, x=0.01, ha="left")
        save_figure(figure, path)


_BESIDE = 11  # points from the middle of a point to its name


def _kind(name: str) -> str:
    """The letters that a name begins with: "resnet" of "resnet18"."""
    return "".join(itertools.takewhile(str.isalpha, name))


def _label(figure: Any, axes: Any, points: dict[str, tuple[float, float]]) -> None:
    """Write the names beside their points, moved up or down until no two of a neighbourhood overlap."""
    figure.canvas.draw()  # settles the layout
    scale = figure.dpi / 72
    height, width = 9.5 * scale, 62 * scale
    placed: list[tuple[float, float]] = []
    for name, point in sorted(points.items(), key=lambda item: (-item[1][1], item[1][0])):
        x, y = axes.transData.transform(point)
        x, target = x + _BESIDE * scale, y
        while near := [b for a, b in placed if abs(a - x) < width and abs(b - target) < height]:
            target = min(near) - 1.01 * height  # a little more, or rounding may find it too near again
        placed.append((x, target))
        offset = (_BESIDE, (target - y) / scale)
        arrow = dict(arrowstyle="-", lw=0.5, color="#5B6470", shrinkA=0, shrinkB=2) if abs(target - y) > 3 else None
        axes.annotate(name, point, offset, textcoords="offset points", va="center", fontsize=7.5, arrowprops=arrow)
