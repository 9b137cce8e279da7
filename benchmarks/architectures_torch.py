"""PyTorch's side of `architectures.py`: the same network, eager or compiled, in the fastest of three ways."""

from __future__ import annotations

from contender import Channel

if __name__ == "__main__":  # binds the process to its CPUs: before PyTorch starts its threads
    CHANNEL = Channel()

import contextlib
import math
import time
from typing import Any

import torch
import torch.nn.functional as F
from architecture_task import MOMENTUM, RATE, Pass, forget_peak, make_batch, peak_bytes, resident_bytes
from torch_networks import BUILDERS, torch_network

LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
# How SGD updates: all in one kernel, or by PyTorch's choice, which is a loop (foreach) over the parameters.
UPDATES = {"fused": {"fused": True}, "default": {}}


def run(channel: Channel) -> None:
    """Choose layout and update, then time a pass of forward and one of training steps per request."""
    options = channel.options
    if options["name"] not in BUILDERS:  # it has no twin
        channel.answer(ready=False)
    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    on_gpu = options["device"] == "gpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    if on_gpu:  # as JAX does by default: tensor cores for float32 too, kernels chosen by trial
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    wake(device)
    before = resident_bytes()
    others = options.get("torch_options", {})
    network = torch_network(options["name"], options["num_classes"], image_size=options["image_size"], **others)
    network = network.to(device)
    called = torch.compile(network, dynamic=False) if options["torch_compile"] else network
    arrays = make_batch(options)
    images = torch.from_numpy(arrays[0]).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(arrays[1]).long().to(device)

    def computing() -> Any:
        half = options["dtype"] == "bfloat16"
        return torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()

    def wait(_: Any) -> None:
        if on_gpu:
            torch.cuda.synchronize()

    def train_in(layout: str, update: str) -> Any:
        network.to(memory_format=LAYOUTS[layout])  # pyright: ignore[reportCallIssue]
        x = images.contiguous(memory_format=LAYOUTS[layout])
        sgd = torch.optim.SGD(network.parameters(), RATE, MOMENTUM, **UPDATES[update])

        def step() -> torch.Tensor:
            with computing():
                loss = F.cross_entropy(called(x.float().div_(255)), labels)
            sgd.zero_grad(set_to_none=True)
            loss.backward()
            sgd.step()
            return loss.detach()

        return step

    trials: dict[tuple[str, str], float] = {}
    first: dict[tuple[str, str], float] = {}

    def attempt(way: tuple[str, str]) -> None:
        try:
            step = train_in(*way)
            start = time.perf_counter()
            wait(step())
            middle = time.perf_counter()
            wait(step())
        except RuntimeError as error:
            if way[1] != "fused" or "fused" not in str(error):
                raise
            return  # not for this device or these types
        first[way], trials[way] = middle - start, time.perf_counter() - middle

    network.train()
    for layout in LAYOUTS:
        attempt((layout, "fused"))
    faster = min(trials, key=lambda way: trials[way])[0] if trials else None
    for layout in LAYOUTS if faster is None else (faster,):
        attempt((layout, "default"))
    chosen = min(trials, key=lambda way: trials[way])
    step, loss = train_in(*chosen), torch.zeros(())
    x = images.contiguous(memory_format=LAYOUTS[chosen[0]])
    compiled = max(seconds for way, seconds in first.items() if way[0] == chosen[0])  # and the first step

    def train_step() -> torch.Tensor:
        nonlocal loss
        loss = step()
        return loss

    @torch.inference_mode()
    def forward_step() -> torch.Tensor:
        with computing():
            return called(x.float().div_(255))

    forget_peak()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    forward_pass = Pass(forward_step, wait, options["seconds"], network.eval)
    train_pass = Pass(train_step, wait, options["seconds"], network.train)
    channel.answer(ready=True)
    while True:
        forward, training = forward_pass(), train_pass()
        channel.answer(
            forward_seconds=forward,
            train_seconds=training,
            steps={"forward": forward_pass.steps, "train": train_pass.steps},
            loss=loss.item() if math.isfinite(loss.item()) else None,
            parameters=sum(p.numel() for p in network.parameters()),
            peak_bytes=torch.cuda.max_memory_allocated() if on_gpu else peak_bytes() - before,
            layout=chosen[0],
            update=chosen[1],
            trial_seconds={", ".join(way): seconds for way, seconds in trials.items()},
            **({"compile_seconds": compiled} if options["torch_compile"] else {}),
            device=torch.cuda.get_device_name() if on_gpu else "cpu",
        )


def wake(device: torch.device) -> None:
    """Run a gradient, so that what PyTorch loads for that is not counted as the network's memory."""
    kernel = torch.zeros(4, 3, 3, 3, device=device, requires_grad=True)
    F.conv2d(torch.zeros(1, 3, 8, 8, device=device), kernel).sum().backward()


if __name__ == "__main__":
    run(CHANNEL)
