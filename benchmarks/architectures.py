"""All architectures on one table: cost, compile time, speed and memory, each beside its twin in PyTorch.

    python benchmarks/architectures.py                          # all of them, about half an hour on two cores
    python benchmarks/architectures.py --only resnet18 vgg16    # some
    python benchmarks/architectures.py --resume                 # go on after an interruption, in the same environment
    python benchmarks/architectures.py --torch-compile          # beside PyTorch compiled, minutes per network on a CPU
    python benchmarks/architectures.py --page docs/models.md --chart docs/figures/architectures.png

For each architecture cnnlab and PyTorch live in processes of their own and take turns. The result is written after each
architecture; one that fails is noted and does not stop the others. benchmarks/README.md tells what is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import jax
from architecture_task import SMALL
from architectures_chart import draw_chart
from architectures_report import markdown, overview
from architectures_resume import earlier, environment_facts
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
    update_page,
    versions,
    write_json,
)

from cnnlab.models import list_models, model_info, summarize

SCRIPTS = {"cnnlab": "architectures_jax.py", "torch": "architectures_torch.py"}
# Images per step, by device, for images below 64 pixels and for larger ones.
BATCH = {"cpu": (64, 4), "gpu": (1024, 128)}
LIMIT = 900  # seconds; a contender that needs longer for an answer, its compilation included, has failed


def main(arguments: list[str] | None = None) -> None:
    """Read the options, measure one architecture after the other, print the table, write JSON, page and chart."""
    args = _parser().parse_args(arguments)
    try:
        run(args)
    except BenchmarkError as error:
        sys.exit(f"architectures.py: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these architectures only; shell patterns are known")
    parser.add_argument("--rounds", type=int, default=3, help="times each is timed (3)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a timed pass, at least one step (1)")
    parser.add_argument("--batch", type=int, help="images per step (CPU: 64 small or 4 large ones; GPU: 1024 or 128)")
    parser.add_argument("--image-size", type=int, help="side of the images; by default those a network is meant for")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="to compute in (float32)")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--threads", type=int, help="CPUs and threads of each contender (2; with a GPU, up to 8)")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    parser.add_argument("--torch-compile", action="store_true", help="compile PyTorch's network (default: eager)")
    parser.add_argument("--resume", action="store_true", help="keep what is in the JSON file, measure what is missing")
    parser.add_argument("--out", type=Path, default=RESULTS / "architectures.json", help="the JSON file to write")
    parser.add_argument("--page", type=Path, help="put the table into this page of the docs too")
    parser.add_argument("--chart", type=Path, help="draw the chart (PNG); with --page, the page shows it")
    return parser


def run(args: argparse.Namespace) -> None:
    """Do what the options say."""
    if args.rounds < 1 or args.seconds <= 0 or (args.batch or 1) < 1:
        raise BenchmarkError("Expected --rounds, --batch and --seconds above zero.")
    if not args.no_torch:
        expect_torch()
    names = _names(args.only or ["*"])
    settings = _settings(args)
    facts = environment_facts()
    done = earlier(args.out, settings, facts) if args.resume else {}
    say(f"{len(names)} architectures: {args.out} holds what is measured after each, and --resume goes on from it")
    for number, name in enumerate(names, start=1):
        if name in done and not any("error" in done[name].get(side, {}) for side in SCRIPTS):
            continue
        start = time.perf_counter()
        done[name] = {**measure(name, settings), "measured_under": facts}
        say(f"{number} of {len(names)}: {name}, {time.perf_counter() - start:.0f} s")
        ordered = {known: done[known] for known in list_models() if known in done}
        content = {"settings": settings, "architectures": ordered}
        write_json(args.out, "architectures", content, **versions("torch"))
    result = json.loads(args.out.read_text(encoding="utf-8"))
    print(overview(result))
    if args.chart is not None:
        draw_chart(result, args.chart)
    if args.page is not None:
        chart = args.chart and Path(os.path.relpath(args.chart, args.page.parent)).as_posix()
        update_page(args.page, "architectures", markdown(result, chart), code=False)
    print(f"\n{args.out}")


def _names(patterns: list[str]) -> list[str]:
    names = [name for pattern in patterns for name in list_models(pattern)]
    if not names:
        raise BenchmarkError(f"Expected names of architectures, got {' '.join(patterns)}; do look at: cnnlab models.")
    return list(dict.fromkeys(names))


def choose_device(device: str) -> str:
    """Return "cpu" or "gpu" for one of these or "auto", and set this process and the contenders to it."""
    if device == "auto":
        device = "gpu" if shutil.which("nvidia-smi") else "cpu"
    os.environ["JAX_PLATFORMS"] = "cpu" if device == "cpu" else "cuda"  # of the contenders
    jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])  # and of this process, which describes the device
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"  # what torch.compile finds there would be no compilation
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the contenders share the GPU
    return device


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    device = choose_device(args.device)
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = args.threads or min(8 if device == "gpu" else 2, available)
    keys = ("rounds", "seconds", "batch", "image_size", "dtype")
    return {
        **{key: getattr(args, key) for key in keys},
        "device": device,
        "threads": threads,
        "contenders": ["cnnlab"] if args.no_torch else list(SCRIPTS),
        "torch_compile": args.torch_compile,
    }


def measure(name: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Measure an architecture; what fails of it is an entry `{"error": text}`."""
    info = model_info(name)
    side = settings["image_size"] or info.input_size
    classes = 1000 if info.input_size >= SMALL else 10  # as in the papers
    batch = settings["batch"] or BATCH[settings["device"]][side >= SMALL]
    options = {"num_classes": classes, "image_size": side, "dtype": settings["dtype"]}
    options = {key: value for key, value in options.items() if key in info.options}
    if options.get("dtype") == "float32":
        del options["dtype"]
    facts = {"family": info.family, "paper": info.paper}
    facts |= {"image_size": side, "num_classes": classes, "batch_size": batch}
    try:
        costs = summarize(name, **{"image_size": side, **options})
    except (ValueError, TypeError) as error:  # not for images of this size
        return {**facts, "cnnlab": {"error": str(error)}}
    facts |= {"parameters": costs.parameters, "multiply_adds": costs.multiply_adds}
    task = {key: settings[key] for key in ("seconds", "threads", "device", "dtype", "torch_compile")}
    task |= {"name": name, "model_options": options, "cpus": cpus(settings["threads"])}
    task |= {key: facts[key] for key in ("image_size", "num_classes", "batch_size")}
    found = take_turns({side: (SCRIPTS[side], task) for side in settings["contenders"]}, settings["rounds"])
    sides = {side: describe(side, answers, facts) for side, answers in found.items()}
    if set(sides) == set(SCRIPTS) and not any("error" in entry for entry in sides.values()):
        speeds = {side: entry["train_images_per_second"]["values"] for side, entry in sides.items()}
        sides["cnnlab"]["ratio_to_torch"] = ratios(speeds, ["torch"])["cnnlab"]
    return {**facts, **sides}


def take_turns(contenders: dict[str, tuple[str, dict[str, Any]]], rounds: int) -> dict[str, list[dict[str, Any]] | str]:
    """Return the answers of each contender that has this network, or why there are none.

    Args:
        contenders: name to its script and task.
        rounds: how often each is timed.
    """
    workers: dict[str, Worker] = {}
    found: dict[str, list[dict[str, Any]] | str] = {}

    def take_turn(side: str) -> None:
        """Let a contender warm up at first, then answer; a failure is its last turn."""
        try:
            if side not in workers:
                workers[side] = Worker(side, *contenders[side])
                if workers[side].ask("warm up", limit=LIMIT)["ready"]:
                    found[side] = []
            elif isinstance(answers := found.get(side), list):
                answers.append(workers[side].ask("run", limit=LIMIT))
        except BenchmarkError as error:
            say(f"  {error}")
            found[side] = str(error)

    try:
        for order in [list(contenders), *rotated(list(contenders), rounds)]:
            for side in order:
                take_turn(side)
    finally:
        for worker in workers.values():
            worker.close()
    return found


def describe(side: str, answers: list[dict[str, Any]] | str, facts: dict[str, Any]) -> dict[str, Any]:
    """Return what is reported of a contender; an error if it did not do the task in question."""
    if isinstance(answers, str):
        return {"error": answers}
    last = answers[-1]
    if last["parameters"] != facts["parameters"]:
        return {"error": f"Expected {facts['parameters']} parameters in {side}, got {last['parameters']}."}
    if last["loss"] is None:
        return {"error": f"Expected the loss of {side} to be finite."}
    batch = facts["batch_size"]
    kept = (
        "compile_seconds",
        "forward_compile_seconds",
        "layout",
        "update",
        "trial_seconds",
        "program_bytes",
        "device",
    )
    return {
        "forward_images_per_second": summary([batch / answer["forward_seconds"] for answer in answers]),
        "train_images_per_second": summary([batch / answer["train_seconds"] for answer in answers]),
        "peak_bytes": max(answer["peak_bytes"] for answer in answers),
        **{key: last[key] for key in ("steps", "loss", *kept) if key in last},
        "idle_cpu_seconds": max(answer["idle_cpu_seconds"] for answer in answers),
    }


if __name__ == "__main__":
    main()
