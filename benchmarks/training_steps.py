"""Speed of whole training steps against PyTorch, eager and compiled, with the ratio each network is meant to reach.

    python benchmarks/training_steps.py                        # four networks, about 15 minutes on two cores
    python benchmarks/training_steps.py --only resnet20        # one of them
    python benchmarks/training_steps.py --device gpu --page docs/performance.md

On CPU: CIFAR-sized images, float32, the same number of threads on both sides. On a GPU: bfloat16, with 224 pixels
for ResNet-34 and AlexNet. For each network cnnlab, PyTorch eager and `torch.compile` live in processes of their own and
take turns; the better of PyTorch's two counts, and each of these is itself the fastest of NCHW and channels-last
memory. benchmarks/README.md tells what is timed. In the same rounds one more process times a matrix product and a copy;
the second table, cnnlab's roofline, holds the steps against these (`roofline.py`).
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from architectures import SCRIPTS, choose_device, describe, take_turns
from measure import (
    RESULTS,
    BenchmarkError,
    cpus,
    expect_torch,
    ratios,
    say,
    table,
    update_page,
    versions,
    write_json,
)
from roofline import PEAKS, SCRIPT, count_work, roofline, roofline_table

from cnnlab.models import summarize

PEERS = {"torch eager": False, "torch compile": True}


class Network(NamedTuple):
    """One line of the table: a network, its batch, and the ratio to the better of PyTorch's it is meant to reach."""

    name: str
    batch: int
    target: float
    image_size: int = 32
    num_classes: int = 10
    model_options: dict[str, Any] = {}
    torch_options: dict[str, Any] = {}


_SMALL = {"stem": "cifar"}
NETWORKS = {
    "cpu": (
        Network("convnet4", 128, 1.5),
        Network("resnet20", 128, 1.0),
        Network("alexnet_cifar", 128, 0.9),
        Network("resnet34", 32, 0.9, model_options=_SMALL, torch_options=_SMALL),
    ),
    "gpu": (
        Network("resnet34", 256, 1.1, 224, 1000),
        Network("alexnet_single", 512, 1.1, 224, 1000, model_options={"image_size": 224}),
        Network("resnet20", 128, 1.5),
    ),
}


def main(arguments: list[str] | None = None) -> None:
    """Read the options, measure one network after the other, print the table, write JSON and page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these networks only")
    parser.add_argument("--rounds", type=int, default=5, help="times each is timed (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a timed pass, at least one step (1)")
    parser.add_argument("--threads", type=int, default=2, help="CPUs and threads of each contender (2)")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--out", type=Path, help="the JSON file (results/training_steps.json, on a GPU ..._gpu.json)")
    parser.add_argument("--page", type=Path, help="put the table into this page of the docs too")
    args = parser.parse_args(arguments)
    try:
        run(args)
    except BenchmarkError as error:
        sys.exit(f"training_steps.py: {error}")


def run(args: argparse.Namespace) -> None:
    """Do what the options say."""
    expect_torch(needed=True)
    if args.rounds < 1 or args.seconds <= 0:
        raise BenchmarkError("Expected --rounds and --seconds above zero.")
    device = choose_device(args.device)
    networks = [n for n in NETWORKS[device] if args.only is None or n.name in args.only]
    if not networks:
        raise BenchmarkError(
            f"Expected some of {', '.join(n.name for n in NETWORKS[device])}, got {' '.join(args.only)}."
        )
    out = args.out or RESULTS / f"training_steps{'' if device == 'cpu' else f'_{device}'}.json"
    settings = {"device": device, "rounds": args.rounds, "seconds": args.seconds, "threads": args.threads}
    settings["dtype"] = "bfloat16" if device == "gpu" else "float32"
    found = {}
    for number, network in enumerate(networks, start=1):
        start = time.perf_counter()
        found[network.name] = measure(network, settings)
        say(f"{number} of {len(networks)}: {network.name}, {time.perf_counter() - start:.0f} s")
        write_json(out, "training_steps", {"settings": settings, "networks": found}, **versions("torch"))
    result = json.loads(out.read_text(encoding="utf-8"))
    tables = {"training_steps": report(result), "roofline": roofline_table(result)}
    print(*tables.values(), sep="\n\n")
    if args.page is not None:
        for name, text in tables.items():
            update_page(args.page, f"{name}_{device}", f"{describe_run(result)}\n\n{text}")
    print(f"\n{out}")


def measure(network: Network, settings: dict[str, Any]) -> dict[str, Any]:
    """Measure a network; a contender that fails is an entry `{"error": text}`."""
    task = task_of(network, settings)
    options = task["model_options"]
    costs = summarize(
        network.name, image_size=network.image_size, **{k: v for k, v in options.items() if k != "image_size"}
    )
    contenders = {"cnnlab": (SCRIPTS["cnnlab"], task)}
    contenders |= {peer: (SCRIPTS["torch"], {**task, "torch_compile": compiled}) for peer, compiled in PEERS.items()}
    sizes = PEAKS[settings["device"]]
    contenders["peaks"] = (SCRIPT, {**task, **sizes})
    facts: dict[str, Any] = {"batch_size": network.batch, "parameters": costs.parameters}
    answers = take_turns(contenders, settings["rounds"])
    peaks = answers.pop("peaks")
    found = {name: describe(name, of, facts) for name, of in answers.items()}
    speeds = {n: entry["train_images_per_second"]["values"] for n, entry in found.items() if "error" not in entry}
    peers = [name for name in PEERS if name in speeds]
    if "cnnlab" in speeds and peers:
        for name, ratio in ratios(speeds, peers).items():
            found[name]["ratio_to_best_torch"] = ratio
    steps = [images / network.batch for images in speeds["cnnlab"]] if "cnnlab" in speeds else None
    facts |= {"multiply_adds": costs.multiply_adds, "image_size": network.image_size, "target": network.target}
    facts["roofline"] = roofline(count_work(costs, network.batch), steps, sizes, peaks)
    return {**facts, "contenders": found}


def task_of(network: Network, settings: dict[str, Any]) -> dict[str, Any]:
    """Return what the contenders are told of a network (`architecture_task`)."""
    dtype = {"dtype": settings["dtype"]} if settings["dtype"] != "float32" else {}
    return {
        **{key: settings[key] for key in ("seconds", "threads", "device", "dtype")},
        "name": network.name,
        "batch_size": network.batch,
        "image_size": network.image_size,
        "num_classes": network.num_classes,
        "model_options": {"num_classes": network.num_classes, **network.model_options, **dtype},
        "torch_options": network.torch_options,
        "cpus": cpus(settings["threads"]),
        "torch_compile": False,
    }


def describe_run(result: dict[str, Any]) -> str:
    """Return one line on a result: hardware, versions, rounds."""
    env, settings = result["environment"], result["settings"]
    hardware = env["device_kind"] if settings["device"] == "gpu" else f"{env['cpu']}, {settings['threads']} threads"
    return (
        f"{hardware}; Python {env['python']}, jax {env['jax']}, torch {env['torch']}; {settings['dtype']}; "
        f"{settings['rounds']} rounds; {env['started'][:10]}"
    )


def report(result: dict[str, Any]) -> str:
    """Return the table: training images/s and the ratio to the better of PyTorch's two in each round."""
    rows = []
    for name, entry in result["networks"].items():
        for contender, found in entry["contenders"].items():
            ours = contender == "cnnlab"
            label = [f"{name}, batch {entry['batch_size']}, {entry['image_size']} px" if ours else "", contender]
            if "error" in found:
                rows.append([*label, "failed", "", "", "", ""])
                continue
            speed, ratio = found["train_images_per_second"], found.get("ratio_to_best_torch")
            against = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "-"
            target = f"{entry['target']:.1f}" if ours else ""
            values = [
                f"{speed[key]:,.0f}" if speed[key] >= 100 else f"{speed[key]:.1f}" for key in ("median", "min", "max")
            ]
            rows.append([label[0], label[1], *values, against, target])
    return table(["network", "contender", "images/s", "min", "max", "against best torch", "aim"], rows)


if __name__ == "__main__":
    main()
