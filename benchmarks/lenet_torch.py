"""The PyTorch contenders of `lenet_step.py`, each in the fastest of several ways to write its step."""

from __future__ import annotations

from contender import BATCH, MOMENTUM, NOISE, RATE, WIDTHS, Channel, make_data

if __name__ == "__main__":  # binds the process to its CPUs: before PyTorch starts its threads
    CHANNEL = Channel()

import copy
import time
from collections.abc import Callable

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


def by_autograd(model: nn.Module, *, compiled: bool, optimizer: str, noise_inside: bool) -> Step:
    """Forward, `backward()`, `torch.optim.SGD`.

    Args:
        model: the network.
        compiled: `torch.compile` the loss, and with it the gradient.
        optimizer: "fused", "foreach", or "compiled" (`torch.compile` of the foreach step).
        noise_inside: the noise is part of the compiled loss.
    """
    options = {"fused": True} if optimizer == "fused" else {"foreach": True}
    sgd = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM, **options)

    def loss_of(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(prepare(x) if noise_inside else x), labels)

    objective = torch.compile(loss_of) if compiled else loss_of
    update = torch.compile(sgd.step) if optimizer == "compiled" else sgd.step

    def step(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = objective(images if noise_inside else prepare(images), labels)
        sgd.zero_grad(set_to_none=True)
        loss.backward()
        update()
        return loss.detach()

    return step


def by_one_graph(model: nn.Module) -> Step:
    """Loss, gradient and update compiled as one graph, without the autograd engine at run time."""
    params = {name: p.detach() for name, p in model.named_parameters()}
    momenta = {name: torch.zeros_like(p) for name, p in params.items()}

    @torch.compile
    def update(x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        def loss_of(params: dict[str, torch.Tensor]) -> torch.Tensor:
            return F.cross_entropy(torch.func.functional_call(model, params, (x,)), labels)

        gradient, loss = torch.func.grad_and_value(loss_of)(params)
        for name, p in params.items():
            momenta[name].mul_(MOMENTUM).add_(gradient[name])
            p.sub_(momenta[name], alpha=RATE)
        return loss

    return lambda images, labels: update(prepare(images), labels)


def ways(kind: str) -> dict[str, Callable[[nn.Module], Step]]:
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
    return {**tried, "one graph": by_one_graph}


def run(channel: Channel) -> None:
    """Find the fastest way to write the step on this machine, then train with it, a pass per request."""
    kind, steps = channel.options["kind"], channel.options["steps"]
    torch.set_num_threads(channel.options["threads"])
    torch.manual_seed(0)
    layout = torch.channels_last if "channels_last" in kind else torch.contiguous_format
    images, labels = map(torch.from_numpy, make_data(steps))
    images, labels = images.permute(0, 3, 1, 2).contiguous(memory_format=layout), labels.long()
    batches = list(zip(images.split(BATCH), labels.split(BATCH), strict=True))
    initial = LeNet().to(memory_format=layout)

    def one_pass(step: Step, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> tuple[float, float]:
        start = time.perf_counter()
        total = torch.zeros(())
        for x, y in batches:
            total += step(x, y)
        loss = total.item() / len(batches)
        return time.perf_counter() - start, loss

    steps_of, models, trials, compile_seconds = {}, {}, {}, {}
    for name, build in ways(kind).items():
        models[name] = copy.deepcopy(initial)
        steps_of[name] = build(models[name])
        start = time.perf_counter()
        one_pass(steps_of[name], batches[:2])
        compile_seconds[name] = time.perf_counter() - start
        trials[name] = min(one_pass(steps_of[name], batches[: max(steps // 4, 1)])[0] for _ in range(3))
    chosen = min(trials, key=lambda name: trials[name])
    step, model = steps_of[chosen], models[chosen]
    model.load_state_dict(initial.state_dict())  # in place: the trials' training is undone
    facts = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "compile_seconds": compile_seconds[chosen],
        "images": len(images),
        "way": chosen,
        "trial_seconds": trials,
    }
    while True:
        seconds, loss = one_pass(step, batches)
        channel.answer(seconds=seconds, loss=loss, **facts)


if __name__ == "__main__":
    run(CHANNEL)
