"""PyTorch's side of `convolution_passes.py`: oneDNN's convolution in channels-last memory."""

from __future__ import annotations

from contender import Channel

if __name__ == "__main__":  # binds the process to its CPUs: before PyTorch starts its threads
    CHANNEL = Channel()

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

REPEATS = 5


def seconds_of(function: Callable[[], object]) -> float:
    """Return the seconds of one call, the mean of a few after one that is not timed: others have used the caches."""
    function()
    start = time.perf_counter()
    for _ in range(REPEATS):
        function()
    return (time.perf_counter() - start) / REPEATS


def passes(batch: int, side: int, ins: int, outs: int, kernel: int) -> dict[str, Callable[[], object]]:
    """Return the three passes of one shape as functions of nothing."""
    layout = torch.channels_last
    x = torch.randn(batch, ins, side, side).to(memory_format=layout)
    w = torch.randn(outs, ins, kernel, kernel).to(memory_format=layout)
    g = torch.randn(batch, outs, side, side).to(memory_format=layout)

    pads = [kernel // 2] * 2

    def gradient(inputs: bool) -> Callable[[], object]:
        mask = [inputs, not inputs, False]
        backward = torch.ops.aten.convolution_backward
        return lambda: backward(g, x, w, [0], [1, 1], pads, [1, 1], False, [0, 0], 1, mask)

    return {"forward": lambda: F.conv2d(x, w, padding=pads), "inputs": gradient(True), "kernel": gradient(False)}


@torch.inference_mode()
def run(channel: Channel) -> None:
    """Warm up, then time each pass at every request."""
    torch.set_num_threads(channel.options["threads"])
    tasks = [passes(*shape) for shape in channel.options["shapes"]]
    square = torch.ones(1024, 1024)
    for ways in tasks:
        for way in ways.values():
            way()
    torch.mm(square, square)
    while True:
        seconds = [{name: seconds_of(way) for name, way in ways.items()} for ways in tasks]
        channel.answer(seconds=seconds, product=seconds_of(lambda: torch.mm(square, square)))


if __name__ == "__main__":
    run(CHANNEL)
