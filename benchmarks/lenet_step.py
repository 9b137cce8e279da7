"""Training speed of the thesis' network: cnnlab, plain Flax and PyTorch, side by side in one run.

    python benchmarks/lenet_step.py --device cpu    # about 10 minutes on two cores, most of it torch.compile
    python benchmarks/lenet_step.py --device gpu    # bfloat16, data on the device
    python benchmarks/lenet_step.py --no-torch      # without PyTorch

Each contender lives in a process of its own. In each round each of them trains one pass over the same
images while all others sleep; benchmarks/README.md tells what is timed and how to read the result.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from architectures import choose_device
from contender import PARAMETERS
from measure import (
    RESULTS,
    BenchmarkError,
    Worker,
    cpus,
    expect_torch,
    ratios,
    rotated,
    say,
    summary,
    table,
    update_page,
    versions,
    write_json,
)

JAX = ("cnnlab", "cnnlab, no noise", "plain flax")
TORCH = ("torch eager", "torch eager channels_last", "torch compile", "torch compile channels_last")
# So few steps show speed but no learning: the first hundred of this network leave the loss where it was.
STEPS_THAT_LEARN = 1000
STEPS = {"cpu": 500, "gpu": 2000}
DTYPES = {"cpu": "float32", "gpu": "bfloat16"}


def main(arguments: list[str] | None = None) -> None:
    """Read the options, measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="times each contender is timed (5)")
    parser.add_argument("--steps", type=int, help="training steps of 32 images per time (500, on a GPU 2000)")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--threads", type=int, default=2, help="CPUs and threads of each contender (2)")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=JAX + TORCH, help="these contenders only")
    parser.add_argument(
        "--out", type=Path, help="the JSON file to write (results/lenet_step.json, on a GPU lenet_step_gpu.json)"
    )
    parser.add_argument("--page", type=Path, help="put the table into this page of the docs too")
    args = parser.parse_args(arguments)
    try:
        if args.rounds < 1 or (args.steps is not None and args.steps < 1):
            raise BenchmarkError("Expected --rounds and --steps of at least 1.")
        names = [name for name in JAX + TORCH if not args.only or name in args.only]
        names = [name for name in names if name in JAX or not args.no_torch]
        if not names:
            raise BenchmarkError("Expected at least one contender, got none; do leave out --only or --no-torch.")
        if set(names) & set(TORCH):
            expect_torch()
        device = choose_device(args.device)
        settings = {"device": device, "dtype": DTYPES[device], "threads": args.threads, "rounds": args.rounds}
        settings |= {"steps": args.steps or STEPS[device], "batch_size": 32}
        contenders = measure(names, settings)
    except BenchmarkError as error:
        sys.exit(f"lenet_step.py: {error}")
    peers = [name for name in names if name in TORCH]
    if peers:
        speeds = {name: contenders[name]["images_per_second"]["values"] for name in names}
        for name, ratio in ratios(speeds, peers).items():
            contenders[name]["ratio_to_best_torch"] = ratio
    print(report(contenders))
    name = "lenet_step" if device == "cpu" else f"lenet_step_{device}"
    out = args.out or RESULTS / f"{name}.json"
    write_json(out, "lenet_step", {"settings": settings, "contenders": contenders}, **versions("torch"))
    if args.page is not None:
        update_page(args.page, name, f"{describe_run(out)}\n\n{report(contenders)}")
    print(f"\n{out}")


def measure(names: list[str], settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Start all contenders, then time each once per round; return what each measured."""
    workers: dict[str, Worker] = {}
    passes: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    try:
        for name in names:
            say(f"{name}: compiling and warming up ...")
            script = "lenet_jax.py" if name in JAX else "lenet_torch.py"
            options = {**settings, "kind": name, "cpus": cpus(settings["threads"])}
            workers[name] = Worker(name, script, options)
            passes[name].append(workers[name].ask("warm up"))
        for number, order in enumerate(rotated(names, settings["rounds"]), start=1):
            for name in order:
                passes[name].append(workers[name].ask("run"))
            say(f"round {number} of {settings['rounds']}")
    finally:
        for worker in workers.values():
            worker.close()
    return {name: describe(name, passes[name]) for name in names}


def describe(name: str, passes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is reported of a contender; BenchmarkError unless it trained the network in question.

    Args:
        name: the contender.
        passes: its answers, the warm-up first.
    """
    first, timed = passes[0], passes[1:]
    losses = [a["loss"] for a in passes]
    if first["parameters"] != PARAMETERS:
        raise BenchmarkError(f"Expected {PARAMETERS} parameters in {name}, got {first['parameters']}.")
    learnt = len(passes) * first["images"] // 32 >= STEPS_THAT_LEARN
    if not all(loss == loss for loss in losses) or (learnt and not losses[-1] < losses[0]):
        raise BenchmarkError(f"Expected the loss of {name} to fall, got {losses}.")
    return {
        "images_per_second": summary([a["images"] / a["seconds"] for a in timed]),
        "seconds": [a["seconds"] for a in timed],
        "losses": losses,
        "parameters": first["parameters"],
        "compile_seconds": first["compile_seconds"],
        "idle_cpu_seconds": max(a["idle_cpu_seconds"] for a in timed),
        **{key: first[key] for key in ("way", "trial_seconds", "failed_ways") if key in first},
    }


def describe_run(path: Path) -> str:
    """Return one line on a result: hardware, versions, rounds."""
    result = json.loads(path.read_text(encoding="utf-8"))
    env, settings = result["environment"], result["settings"]
    hardware = env["device_kind"] if settings["device"] == "gpu" else f"{env['cpu']}, {settings['threads']} threads"
    return (
        f"{hardware}; Python {env['python']}, jax {env['jax']}, torch {env['torch']}; {settings['dtype']}; "
        f"{settings['rounds']} rounds of {settings['steps']} steps; {env['started'][:10]}"
    )


def report(contenders: dict[str, dict[str, Any]]) -> str:
    """Return the table: images/s (median, least, most) and the ratio to the best PyTorch row of each round."""
    rows = []
    for name, found in contenders.items():
        speed, ratio = found["images_per_second"], found.get("ratio_to_best_torch")
        against = f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "-"
        row = [name, *(f"{speed[key]:,.0f}" for key in ("median", "min", "max")), against, found.get("way", "")]
        rows.append(row)
    return table(["contender", "images/s", "min", "max", "against best torch", "way"], rows)


if __name__ == "__main__":
    main()
