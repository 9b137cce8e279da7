"""Where the time of a training step on CPU goes, by kind of operation, beside PyTorch's.

    python benchmarks/step_profile.py                 # five networks, about 12 minutes
    python benchmarks/step_profile.py --only lenet

The networks are those of `training_steps.py` and LeNet. cnnlab runs the program of an epoch under JAX's profiler;
PyTorch runs eager steps in channels-last memory under its own, since a compiled graph has no such operations any more.
All take turns, on one thread each, since with more of them XLA starts operations at once. benchmarks/README.md tells
how time is shared out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from architectures import choose_device, take_turns
from measure import RESULTS, BenchmarkError, expect_torch, say, summary, table, update_page, versions, write_json
from profile_kinds import COPIES, FORWARD, GRADIENTS, INPUTS, KERNEL, NOTHING, POOLING, PRODUCTS, REST, SEVERAL
from training_steps import NETWORKS, Network, task_of

LENET = Network("lenet", 32, 2.5)
SIDES = {"cnnlab": "step_profile_jax.py", "torch eager": "step_profile_torch.py"}
_ROWS = (FORWARD, GRADIENTS, INPUTS, KERNEL, COPIES, POOLING, PRODUCTS, REST, SEVERAL, NOTHING)


def main(arguments: list[str] | None = None) -> None:
    """Read the options, measure, print the tables, write JSON and page."""
    known = {network.name: network for network in (*NETWORKS["cpu"], LENET)}
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", default=list(known), help="these networks only")
    parser.add_argument("--rounds", type=int, default=5, help="times each is traced (5)")
    parser.add_argument("--threads", type=int, default=1, help="CPUs and threads of each contender (1)")
    parser.add_argument("--out", type=Path, default=RESULTS / "step_profile.json", help="the JSON file to write")
    parser.add_argument("--page", type=Path, help="put the tables into this page of the docs too")
    args = parser.parse_args(arguments)
    try:
        if args.rounds < 1:
            raise BenchmarkError(f"Expected --rounds of at least 1, got {args.rounds}.")
        if unknown := [name for name in args.only if name not in known]:
            raise BenchmarkError(f"Expected some of {', '.join(known)}, got {' '.join(unknown)}.")
        expect_torch(needed=True)
        settings = {"device": choose_device("cpu"), "dtype": "float32", "rounds": args.rounds, "threads": args.threads}
        found = {}
        for number, name in enumerate(args.only, start=1):
            found[name] = measure(known[name], settings)
            say(f"{number} of {len(args.only)}: {name}")
            write_json(args.out, "step_profile", {"settings": settings, "networks": found}, **versions("torch"))
        text = report(json.loads(args.out.read_text(encoding="utf-8")))
        print(text)
        if args.page is not None:
            update_page(args.page, "step_profile", text)
    except BenchmarkError as error:
        sys.exit(f"step_profile.py: {error}")
    print(f"\n{args.out}")


def measure(network: Network, settings: dict[str, Any]) -> dict[str, Any]:
    """Return for each contender the seconds of a step without the profiler, and with it by kind of operation."""
    task = task_of(network, {**settings, "seconds": 1.0})
    contenders = {side: (script, task) for side, script in SIDES.items()}
    found: dict[str, Any] = {"batch_size": network.batch, "image_size": network.image_size, "contenders": {}}
    for side, answers in take_turns(contenders, settings["rounds"]).items():
        if isinstance(answers, str):
            found["contenders"][side] = {"error": answers}
            continue
        kinds = {kind for answer in answers for kind in answer["kinds"]}
        found["contenders"][side] = {
            "seconds": summary([answer["seconds"] for answer in answers]),
            "kinds": {
                kind: summary([answer["kinds"].get(kind, 0.0) for answer in answers]) for kind in _ROWS if kind in kinds
            },
        }
    return found


def report(result: dict[str, Any]) -> str:
    """Return a table per network: milliseconds a step by kind, the median of the rounds, and what the step took."""
    env, settings = result["environment"], result["settings"]
    threads = settings["threads"]
    parts = [
        f"{env['cpu']}, {threads} thread{'s' * (threads > 1)}; Python {env['python']}, jax {env['jax']}, "
        f"torch {env['torch']}; {settings['dtype']}; median of {settings['rounds']} rounds; {env['started'][:10]}"
    ]
    for name, entry in result["networks"].items():
        contenders = {side: found for side, found in entry["contenders"].items() if "error" not in found}
        header = [f"{name}, batch {entry['batch_size']}: milliseconds a step", *contenders]
        kinds = {side: {kind: of["median"] for kind, of in c["kinds"].items()} for side, c in contenders.items()}
        for of in kinds.values():  # where they are told apart, the sum as well
            if KERNEL in of or INPUTS in of:
                of[GRADIENTS] = sum(of.get(kind, 0.0) for kind in (INPUTS, KERNEL, GRADIENTS))
        rows = []
        for kind in _ROWS:
            if any(kind in of for of in kinds.values()):
                label = f"  of which {kind.removeprefix('convolutions, ')}" if kind in (INPUTS, KERNEL) else kind
                rows.append([label, *(_milliseconds(of.get(kind)) for of in kinds.values())])
        rows.append(["under the profiler", *(_milliseconds(_total(of)) for of in kinds.values())])
        rows.append(["without a profiler", *(_milliseconds(c["seconds"]["median"]) for c in contenders.values())])
        failed = [f"{side} failed" for side, found in entry["contenders"].items() if "error" in found]
        parts.append("\n".join([table(header, rows), *failed]))
    return "\n\n".join(parts)


def _total(kinds: dict[str, float]) -> float:
    return sum(seconds for kind, seconds in kinds.items() if kind not in (INPUTS, KERNEL))


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:.1f}" if seconds < 0.1 else f"{1000 * seconds:,.0f}"


if __name__ == "__main__":
    main()
