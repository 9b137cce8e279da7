"""Speed of the three passes of a convolution: cnnlab, `jax.lax` and PyTorch.

    python benchmarks/convolution_passes.py                 # about 4 minutes on two cores
    python benchmarks/convolution_passes.py --threads 1
    python benchmarks/convolution_passes.py --seeds 4       # of four networks at once, as `fit` may train several seeds

For each shape: forward, gradient of the inputs, gradient of the kernel, in GFLOP/s (two per multiply-add, padding
counted), float32, NHWC in JAX, channels-last in PyTorch, beside the rate of a matrix product. It shows which pass of
which layer holds a network back. With --seeds, cnnlab's convolutions stand beside `jax.lax`'s under `vmap` over inputs
and kernels, where the latter is one grouped convolution.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from measure import (
    RESULTS,
    BenchmarkError,
    Worker,
    cpus,
    expect_torch,
    rotated,
    say,
    summary,
    table,
    update_page,
    versions,
    write_json,
)

# batch, side, channels in, channels out, side of the kernel: the layers of convnet4, the stages of ResNet-20, those of
# ResNet-34 with the stem for small images, VGG's last maps with such images, and the layer of the race's network with
# most multiply-adds, with its batch
SHAPES = ((128, 32, 3, 32, 5), (128, 16, 32, 32, 5), (128, 8, 32, 64, 5))
SHAPES += ((128, 32, 3, 16, 3), (128, 32, 16, 16, 3), (128, 16, 32, 32, 3), (128, 8, 64, 64, 3))
SHAPES += (
    (32, 32, 64, 64, 3),
    (32, 16, 128, 128, 3),
    (32, 8, 256, 256, 3),
    (32, 4, 512, 512, 3),
    (128, 2, 512, 512, 3),
    (1024, 15, 64, 256, 3),
)
# likewise, the convolutions of LeNet (padded here), by blocks, and the stages of ResNet-20
SHAPES_OF_SEEDS = ((32, 28, 3, 6, 5), (32, 10, 6, 16, 5), (32, 32, 16, 16, 3), (32, 16, 32, 32, 3), (32, 8, 64, 64, 3))
PASSES = {"forward": "forward", "inputs": "gradient of the inputs", "kernel": "gradient of the kernel"}
SIDES = dict.fromkeys(("cnnlab", "lax"), "convolution_passes_jax.py")
TORCH = {"torch": "convolution_passes_torch.py"}


def main(arguments: list[str] | None = None) -> None:
    """Read the options, measure, print the table, write JSON and page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="times each is timed (5)")
    parser.add_argument("--threads", type=int, default=2, help="CPUs and threads of each contender (2)")
    parser.add_argument("--seeds", type=int, default=1, help="kernels at once, under vmap, without PyTorch (1)")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    parser.add_argument("--out", type=Path, help="the JSON file to write, in benchmarks/results by default")
    parser.add_argument("--page", type=Path, help="put the table into this page of the docs too")
    args = parser.parse_args(arguments)
    try:
        if args.rounds < 1 or args.seeds < 1:
            raise BenchmarkError(f"Expected --rounds and --seeds of at least 1, got {args.rounds} and {args.seeds}.")
        several = args.seeds > 1
        sides = SIDES
        if not args.no_torch and not several:
            expect_torch()
            sides = {**SIDES, **TORCH}
        os.environ["JAX_PLATFORMS"] = "cpu"
        shapes = SHAPES_OF_SEEDS if several else SHAPES
        found = measure(sides, args.rounds, args.threads, shapes, seeds=args.seeds)
    except BenchmarkError as error:
        sys.exit(f"convolution_passes.py: {error}")
    settings = {"rounds": args.rounds, "threads": args.threads, "seeds": args.seeds}
    name = "convolution_passes_seeds" if several else "convolution_passes"
    out = RESULTS / f"{name}.json" if args.out is None else args.out
    write_json(out, "convolution_passes", {"settings": settings, **found}, **versions("torch"))
    print(report(found))
    if args.page is not None:
        update_page(args.page, name, f"{describe_run(out)}\n\n{report(found)}")
    print(f"\n{out}")


def measure(sides: dict[str, str], rounds: int, threads: int, shapes: Any, *, seeds: int = 1) -> dict[str, Any]:
    """Return the rate of a matrix product, and for each shape and pass the `summary` of each side's GFLOP/s."""
    workers: dict[str, Worker] = {}
    answers: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    try:
        for side, script in sides.items():
            say(f"{side}: compiling and warming up ...")
            options = {"side": side, "threads": threads, "cpus": cpus(threads), "shapes": shapes, "seeds": seeds}
            workers[side] = Worker(side, script, options)
            workers[side].ask("warm up")
        for number, order in enumerate(rotated(list(sides), rounds), start=1):
            for side in order:
                answers[side].append(workers[side].ask("run"))
            say(f"round {number} of {rounds}")
    finally:
        for worker in workers.values():
            worker.close()
    products = {side: summary([2 * 1024**3 / a["product"] / 1e9 for a in of]) for side, of in answers.items()}
    rates = []
    for i, (batch, side, ins, outs, kernel) in enumerate(shapes):
        work = seeds * 2 * kernel**2 * batch * side * side * ins * outs
        of_shape = {
            name: {way: summary([work / a["seconds"][i][way] / 1e9 for a in of]) for way in PASSES}
            for name, of in answers.items()
        }
        rates.append({"shape": [batch, side, ins, outs, kernel], "gflops": of_shape})
    return {"product_gflops": products, "passes": rates}


def describe_run(path: Path) -> str:
    """Return one line on a result: hardware, versions, rounds."""
    result = json.loads(path.read_text(encoding="utf-8"))
    env, settings = result["environment"], result["settings"]
    at_once = f"{settings['seeds']} at once; " if settings["seeds"] > 1 else ""
    return (
        f"{env['cpu']}, {settings['threads']} threads; Python {env['python']}, jax {env['jax']}, torch {env['torch']}; "
        f"{at_once}GFLOP/s, median and range of {settings['rounds']} rounds; {env['started'][:10]}"
    )


def report(found: dict[str, Any]) -> str:
    """Return a table for each pass: a row for each shape, a column for each side, median and range of the rounds."""
    sides = list(found["product_gflops"])
    parts = []
    for way, title in PASSES.items():
        rows = []
        for entry in found["passes"]:
            batch, side, ins, outs, kernel = entry["shape"]
            cells = [_range(entry["gflops"][name][way]) for name in sides]
            rows.append([f"{batch} x {side} px, {ins} to {outs}, {kernel}x{kernel}", *cells])
        parts.append(table([title, *sides], rows))
    products = ", ".join(f"{name} {_range(of)}" for name, of in found["product_gflops"].items())
    return "\n\n".join([*parts, f"matrix product of 1024 x 1024: {products}"])


def _range(values: dict[str, Any]) -> str:
    return f"{values['median']:.0f} ({values['min']:.0f} to {values['max']:.0f})"


if __name__ == "__main__":
    main()
