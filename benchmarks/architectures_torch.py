"""PyTorch's side of `architectures.py`: the same network in eager mode, in the faster of two memory layouts."""

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
from torch_networks import torch_network

LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}


def run(channel: Channel) -> None:
    """Choose the layout, then time a pass of forward and one of training steps per request."""
    options = channel.options
    torch.set_num_threads(options["threads"])
    torch.manual_seed(0)
    on_gpu = options["device"] == "gpu"
    device = torch.device("cuda" if on_gpu else "cpu")
    if on_gpu:  # as JAX does by default: tensor cores for float32 too, kernels chosen by trial
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    torch.zeros(1, device=device)
    before = resident_bytes()
    network = torch_network(options["name"], options["num_classes"], image_size=options["image_size"]).to(device)
    arrays = make_batch(options)
    images = torch.from_numpy(arrays[0]).permute(0, 3, 1, 2).to(device)
    labels = torch.from_numpy(arrays[1]).long().to(device)

    def computing() -> Any:
        half = options["dtype"] == "bfloat16"
        return torch.autocast(device.type, torch.bfloat16) if half else contextlib.nullcontext()

    def wait(_: Any) -> None:
        if on_gpu:
            torch.cuda.synchronize()

    def train_in(layout: torch.memory_format) -> Any:
        network.to(memory_format=layout)  # pyright: ignore[reportCallIssue]
        x, sgd = images.contiguous(memory_format=layout), torch.optim.SGD(network.parameters(), RATE, MOMENTUM)

        def step() -> torch.Tensor:
            network.train()
            with computing():
                loss = F.cross_entropy(network(x.float().div_(255)), labels)
            sgd.zero_grad(set_to_none=True)
            loss.backward()
            sgd.step()
            return loss.detach()

        return step

    trials = {}
    for name, layout in LAYOUTS.items():
        step = train_in(layout)
        wait(step())
        start = time.perf_counter()
        wait(step())
        trials[name] = time.perf_counter() - start
    chosen = min(trials, key=lambda name: trials[name])
    step, loss = train_in(LAYOUTS[chosen]), torch.zeros(())
    x = images.contiguous(memory_format=LAYOUTS[chosen])

    def train_step() -> torch.Tensor:
        nonlocal loss
        loss = step()
        return loss

    @torch.inference_mode()
    def forward_step() -> torch.Tensor:
        network.eval()
        with computing():
            return network(x.float().div_(255))

    forget_peak()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    forward_pass = Pass(forward_step, wait, options["seconds"])
    train_pass = Pass(train_step, wait, options["seconds"])
    while True:
        forward, training = forward_pass(), train_pass()
        channel.answer(
            forward_seconds=forward,
            train_seconds=training,
            steps={"forward": forward_pass.steps, "train": train_pass.steps},
            loss=loss.item() if math.isfinite(loss.item()) else None,
            parameters=sum(p.numel() for p in network.parameters()),
            peak_bytes=torch.cuda.max_memory_allocated() if on_gpu else peak_bytes() - before,
            layout=chosen,
            trial_seconds=trials,
            device=torch.cuda.get_device_name() if on_gpu else "cpu",
        )


if __name__ == "__main__":
    run(CHANNEL)
