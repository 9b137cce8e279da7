"""The result of `architectures.py` as a table on a terminal and as a table in Markdown."""

from __future__ import annotations

from typing import Any

from measure import markdown_table, table

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
