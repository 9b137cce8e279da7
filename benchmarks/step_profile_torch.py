"""PyTorch's side of `step_profile.py`: an eager step under PyTorch's profiler, its seconds by kind of operation."""

from __future__ import annotations

from contender import Channel

if __name__ == "__main__":  # binds the process to its CPUs: before PyTorch starts its threads
    CHANNEL = Channel()

import time

import torch
import torch.nn.functional as F
from architecture_task import MOMENTUM, RATE, make_batch
from profile_kinds import COPIES, FORWARD, GRADIENTS, NOTHING, POOLING, PRODUCTS, REST
from torch.profiler import ProfilerActivity, profile
from torch_networks import torch_network

REPEATS = 4


def kind_of(name: str) -> str:
    """Return to which row of the table an operation of PyTorch's belongs."""
    if "convolution" in name:
        return GRADIENTS if "backward" in name.lower() else FORWARD
    if "pool" in name:
        return POOLING
    if name in ("aten::mm", "aten::addmm", "aten::bmm"):
        return PRODUCTS
    return COPIES if name in ("aten::copy_", "aten::clone", "aten::contiguous") else REST


def run(channel: Channel) -> None:
    """Warm up in channels-last memory with fused SGD, then trace a few steps per request."""
    options = channel.options
    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    layout = torch.channels_last
    network = torch_network(
        options["name"], options["num_classes"], image_size=options["image_size"], **options["torch_options"]
    )
    network = network.to(memory_format=layout).train()  # pyright: ignore[reportCallIssue]
    arrays = make_batch(options)
    images = torch.from_numpy(arrays[0]).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    labels = torch.from_numpy(arrays[1]).long()
    sgd = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, fused=True)

    def steps() -> float:
        start = time.perf_counter()
        for _ in range(REPEATS):
            loss = F.cross_entropy(network(images.float().div_(255)), labels)
            sgd.zero_grad(set_to_none=True)
            loss.backward()
            sgd.step()
        return time.perf_counter() - start

    steps()
    channel.answer(ready=True)
    while True:
        seconds = steps() / REPEATS
        with profile(activities=[ProfilerActivity.CPU]) as trace:
            traced = steps()
        kinds: dict[str, float] = {}
        for event in trace.key_averages():
            kind = kind_of(event.key)
            kinds[kind] = kinds.get(kind, 0.0) + event.self_cpu_time_total / 1e6 / REPEATS
        kinds[NOTHING] = traced / REPEATS - sum(kinds.values())
        channel.answer(seconds=seconds, kinds=kinds)


if __name__ == "__main__":
    run(CHANNEL)
