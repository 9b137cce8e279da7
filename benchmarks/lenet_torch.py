"""The PyTorch contenders of `lenet_step.py`, each in the fastest of several ways to write its step."""

from __future__ import annotations

from contender import BATCH, MOMENTUM, NOISE, RATE, WIDTHS, Channel, make_data

if __name__ == "__main__":  # binds the process to its CPUs: before PyTorch starts its threads
    CHANNEL = Channel()

import contextlib
import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class LeNet(nn.Module):
    """The thesis' network."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.dense = nn.ModuleList(nn.Linear(a, b) for a, b in zip(WIDTHS[:-1], WIDTHS[1:], strict=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map `[b, 3, 32, 32]` to logits `[b, 10]`."""
        for conv in (self.conv1, self.conv2):
            x = F.max_pool2d(F.relu(conv(x)), 2)
        x = x.flatten(1)
        for layer in self.dense[:-1]:
            x = F.relu(layer(x))
        return self.dense[-1](x)


def prepare(images: torch.Tensor) -> torch.Tensor:
    """Turn uint8 into float32 in [0, 1] with noise, in place after the first copy."""
    x = images.to(torch.float32).div_(255)
    return x.add_(torch.randn_like(x), alpha=NOISE)


def computing(images: torch.Tensor) -> Any:
    """Return a context: bfloat16 where it is faster on a GPU, as its users write it; on CPU nothing is changed."""
    return torch.autocast("cuda", torch.bfloat16) if images.is_cuda else contextlib.nullcontext()


def by_autograd(
    model: nn.Module, *, compiled: bool, optimizer: str, noise_inside: bool, mode: str | None = None
) -> Step:
    """Forward, `backward()`, `torch.optim.SGD`.

    Args:
        model: the network.
        compiled: `torch.compile` the loss, and with it the gradient.
        optimizer: "fused", "foreach", or "compiled" (`torch.compile` of the foreach step).
        noise_inside: the noise is part of the compiled loss.
        mode: of `torch.compile`; "reduce-overhead" makes CUDA graphs of loss and gradient.
    """
    options = {"fused": True} if optimizer == "fused" else {"foreach": True}
    sgd = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, **options)

    def loss_of(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(prepare(x) if noise_inside else x), labels)

    objective = torch.compile(loss_of, mode=mode) if compiled else loss_of
    update = torch.compile(sgd.step) if optimizer == "compiled" else sgd.step

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        if mode is not None:
            torch.compiler.cudagraph_mark_step_begin()
        sgd.zero_grad(set_to_none=True)
        x = images if noise_inside else prepare(images)
        with computing(x):
            loss = objective(x, labels)
        loss.backward()
        update()
        return loss.detach()

    return step


def by_one_graph(model: nn.Module, *, mode: str | None = None) -> Step:
    """Loss, gradient and update compiled as one graph, without the autograd engine at run time.

    Args:
        model: the network.
        mode: of `torch.compile`; "reduce-overhead" makes one CUDA graph of it all.
    """
    params = {name: p.detach() for name, p in model.named_parameters()}
    momenta = {name: torch.zeros_like(p) for name, p in params.items()}
    if mode is not None:
        for array in (*params.values(), *momenta.values()):
            torch._dynamo.mark_static_address(array)  # else what is changed in place keeps it out of CUDA graphs

    @partial(torch.compile, mode=mode)
    def update(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        def loss_of(params: dict[str, torch.Tensor]) -> torch.Tensor:
            return F.cross_entropy(torch.func.functional_call(model, params, (x,)), labels)

        gradient, loss = torch.func.grad_and_value(loss_of)(params)
        for name, p in params.items():
            momenta[name].mul_(MOMENTUM).add_(gradient[name])
            p.sub_(momenta[name], alpha=RATE)
        return loss

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        x = prepare(images)
        with computing(x):
            return update(x, labels)

    return step


def ways(kind: str, device: torch.device) -> dict[str, Callable[[nn.Module], Step]]:
    """Return the ways to write the step that are tried for this kind of contender, by name."""
    if "eager" in kind:
        return {
            name: lambda model, name=name: by_autograd(model, compiled=False, optimizer=name, noise_inside=False)
            for name in ("fused", "foreach")
        }
    tried: dict[str, Callable[[nn.Module], Step]] = {
        f"{name}, noise {'inside' if inside else 'outside'}": lambda model, name=name, inside=inside: by_autograd(
            model, compiled=True, optimizer=name, noise_inside=inside
        )
        for name, inside in (("fused", False), ("fused", True), ("compiled", False))
    }
    tried["one graph"] = by_one_graph
    if device.type == "cuda":
        graphs = "reduce-overhead"
        tried["fused, noise inside, CUDA graphs"] = lambda model: by_autograd(
            model, compiled=True, optimizer="fused", noise_inside=True, mode=graphs
        )
        tried["one graph, CUDA graph"] = lambda model: by_one_graph(model, mode=graphs)
    return tried


def run(channel: Channel) -> None:
    """Find the fastest way to write the step on this machine, then train with it, a pass per request."""
    kind, steps = channel.options["kind"], channel.options["steps"]
    torch.set_num_threads(channel.options["threads"])
    torch.manual_seed(0)
    device = torch.device("cuda" if channel.options["device"] == "gpu" else "cpu")
    if device.type == "cuda":  # as JAX does by default: tensor cores for float32 too, kernels chosen by trial
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    layout = torch.channels_last if "channels_last" in kind else torch.contiguous_format
    images, labels = map(torch.from_numpy, make_data(steps))
    images = images.permute(0, 3, 1, 2).contiguous(memory_format=layout).to(device)
    labels = labels.long().to(device)
    batches = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))
    initial = LeNet().to(device, memory_format=layout)  # pyright: ignore[reportCallIssue]

    def one_pass(step: Step, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float]:
        start = time.perf_counter()
        total = torch.zeros((), device=device)
        for x, y in batches:
            total += step(x, y)
        loss = total.item() / len(batches)
        return time.perf_counter() - start, loss

    steps_of, models, trials, compile_seconds, failed = {}, {}, {}, {}, {}
    for name, build in ways(kind, device).items():
        models[name] = copy.deepcopy(initial)
        try:
            steps_of[name] = build(models[name])
            start = time.perf_counter()
            one_pass(steps_of[name], batches[:2])
            compile_seconds[name] = time.perf_counter() - start
            trials[name] = min(one_pass(steps_of[name], batches[: max(steps // 4, 1)])[0] for _ in range(3))
        except RuntimeError as error:  # a way that is not for this device; the others are tried
            failed[name] = (str(error).splitlines() or [type(error).__name__])[0]
    if not trials:
        raise RuntimeError(f"Expected one way to train that works, got {failed}.")
    chosen = min(trials, key=lambda name: trials[name])
    step, model = steps_of[chosen], models[chosen]
    model.load_state_dict(initial.state_dict())  # in place: the trials' training is undone
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "compile_seconds": compile_seconds[chosen],
        "images": len(images),
        "way": chosen,
        "trial_seconds": trials,
        **({"failed_ways": failed} if failed else {}),
    }
    while True:
        seconds, loss = one_pass(step, batches)
        channel.answer(seconds=seconds, loss=loss, **facts)


if __name__ == "__main__":
    run(CHANNEL)
