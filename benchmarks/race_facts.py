"""What a race ran on and how much it computed: the GPU as its driver tells it, and operations counted by hand."""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Mapping
from typing import Any

from cnnlab.models import summarize
from cnnlab.training import Recipe

_VIEWS = 6  # of test-time augmentation "multi-crop"
_ASKED = ("name", "driver_version", "power.limit", "clocks.max.sm", "memory.total")
_SECONDS = 10.0


def petaflop(recipe: Recipe, options: Mapping[str, Any], train: int, test: int, side: int) -> dict[str, float]:
    """Return 10^15 floating-point operations of a run: `train`, `evaluate` and their sum `total`.

    Two per multiply-add of convolutions and matrix products: forward and for both gradients, but for the first layer,
    whose kernel is frozen and whose inputs are images: forward only. Evaluation is forward of six views. What norms,
    augmentation, whitening and the optimiser compute (with Muon half a percent) is not counted.

    Args:
        recipe: one of the race's.
        options: of `cifarnet`.
        train: training images.
        test: test images.
        side: of the images, in pixels.
    """
    costs = summarize("cifarnet", image_size=side, **options)
    forward = costs.multiply_adds
    first = next(layer.multiply_adds for layer in costs.layers if layer.multiply_adds)
    seen = recipe.epochs * (train // recipe.batch_size) * recipe.batch_size  # the short last batch is left out
    training, evaluation = 2e-15 * seen * (3 * forward - 2 * first), 2e-15 * test * _VIEWS * forward
    return {"train": training, "evaluate": evaluation, "total": training + evaluation}


def describe_device() -> dict[str, Any]:
    """Return `platform_version`, JAX's word for the runtime (with its version of CUDA), and `gpus`.

    `gpus` holds what `nvidia-smi` says of each card: name, driver, power limit in watts, highest clock in MHz, memory
    in MiB; None where there is no `nvidia-smi`.
    """
    from jax.extend.backend import get_backend

    return {"platform_version": get_backend().platform_version, "gpus": _gpus()}


def _gpus() -> list[dict[str, Any]] | None:
    command = ["nvidia-smi", f"--query-gpu={','.join(_ASKED)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    keys = ("name", "driver", "power_limit_watts", "clock_mhz", "memory_mib")
    rows = csv.reader(done.stdout.splitlines(), skipinitialspace=True)
    return [dict(zip(keys, [*row[:2], *map(_number, row[2:])], strict=True)) for row in rows if len(row) == len(keys)]


def _number(text: str) -> float | None:
    """A number; None for what the card does not tell, `[N/A]`."""
    try:
        return float(text)
    except ValueError:
        return None
