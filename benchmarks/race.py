"""The race: CIFAR-10 to a mean test accuracy of 94 (95, 96) %, as fast as can be, by the rules of docs/race.md.

    python benchmarks/race.py --target 94 --runs 1                 # on a CPU half an hour to an hour per run
    python benchmarks/race.py --target 94 --recipe race94-muon --runs 200 --dtype bfloat16      # on a GPU
    python benchmarks/race.py --target 94 --runs 20 --peer ../theirs/train.py --peer-pattern 'time: ([0-9.]+)'
    python benchmarks/race.py --target 94 --quick                  # does it work? a minute, a few images, one epoch

Each finished run is a line in a .jsonl file beside the JSON; the same command goes on after the last one.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from measure import RESULTS, BenchmarkError, say, update_page, versions, write_json
from race_peer import expect_script, run_peer
from race_results import append_run, page_table, read_runs, report, summarized

_QUICK_TRAIN, _QUICK_TEST = 5000, 500


def main(arguments: list[str] | None = None) -> None:
    """Read the options, run what is missing, print the table, write the JSON."""
    args = _parser().parse_args(arguments)
    try:
        race(args)
    except BenchmarkError as error:
        sys.exit(f"race.py: {error}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", type=int, default=94, choices=(94, 95, 96), help="mean accuracy in percent (94)")
    parser.add_argument("--recipe", help="race94, race94-muon, race95 or race96; by default race and the target")
    parser.add_argument("--runs", type=int, default=1, help="runs, with seeds from 0 (1)")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="of the arithmetic (float32)"
    )
    parser.add_argument("--data-dir", type=Path, help="where CIFAR-10 lies, if cnnlab does not find it")
    parser.add_argument("--json", type=Path, help="the JSON file to write (benchmarks/results/RECIPE_BACKEND.json)")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that are in the .jsonl beside it")
    parser.add_argument("--quick", action="store_true", help="one run of one epoch on a few images")
    parser.add_argument("--page", type=Path, help="put a table of all results into this page of the docs too")
    parser.add_argument("--peer", type=Path, help="a script of yours, run once after each run of ours")
    parser.add_argument("--peer-pattern", help="regular expression whose group finds the seconds in what it prints")
    return parser


def race(args: argparse.Namespace) -> None:
    """Run the race that the options describe; BenchmarkError where it cannot be."""
    import jax
    from race_run import ENTRIES, Racer

    from cnnlab import load_dataset
    from cnnlab.training import get_recipe
    from cnnlab.training.compilation_cache import use_compilation_cache

    name = args.recipe or f"race{args.target}"
    if name not in ENTRIES:
        raise BenchmarkError(f"Expected --recipe to be one of {', '.join(ENTRIES)}, got {name!r}.")
    if args.runs < 1:
        raise BenchmarkError(f"Expected --runs of at least 1, got {args.runs}.")
    if args.peer is not None:
        expect_script(args.peer)
    use_compilation_cache()
    recipe, options, runs = get_recipe(name).replace(precision=args.dtype), ENTRIES[name].options, args.runs
    data = load_dataset("cifar10", args.data_dir)
    if args.quick:
        train, test = (split.take(slice(n)) for split, n in ((data.train, _QUICK_TRAIN), (data.test, _QUICK_TEST)))
        data, runs = dataclasses.replace(data, train=train, test=test), 1
        recipe = recipe.replace(epochs=1, warmup_epochs=recipe.warmup_epochs / recipe.epochs)
    device = jax.devices()[0].device_kind
    settings = {
        "target": args.target,
        "recipe": recipe.to_dict(),
        "network": {"name": "cifarnet", "options": options},
        "device": device,
        "train_images": len(data.train),
        "test_images": len(data.test),
        "data": data.fingerprint,
        "test_time_augmentation": "multi-crop",
        "peer": None if args.peer is None else args.peer.name,
    }
    suffix = "_quick" if args.quick else ""
    path = args.json or RESULTS / f"{name.replace('-', '_')}_{jax.default_backend()}{suffix}.json"
    lines = path.with_suffix(".jsonl")
    if args.fresh or args.quick:
        lines.unlink(missing_ok=True)
    finished = read_runs(lines, settings)
    todo = [seed for seed in range(runs) if seed not in {run["seed"] for run in finished}]
    say(f"{name} on {device}: {len(finished)} runs done, {len(todo)} to go")
    if todo:
        racer = Racer(recipe, options, data, say)
        say(f"compiled and warmed up in {racer.warm_up():.1f} s")
    for seed in todo:
        finished.append(_one_round(racer, seed, args))  # pyright: ignore[reportPossiblyUnboundVariable]
        append_run(lines, settings, finished[-1])
    finished = sorted(finished, key=lambda run: run["seed"])[:runs]
    result = summarized(finished, args.target, [run["peer"] for run in finished if "peer" in run])
    print(report(result))
    write_json(path, "race", {"settings": settings, **result}, **versions("scipy", "torch"))
    print(f"\n{path}")
    if args.page is not None:
        update_page(args.page, "race", page_table(path.parent), code=False)


def _one_round(racer: Any, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """One run of ours, and then one of the peer's."""
    run = racer.run(seed)
    say(
        f"seed {seed}: {run['seconds']:.3f} s, {run['accuracy']:.2f} % "
        f"(without test-time augmentation {run['accuracy_plain']:.2f} %)"
    )
    if args.peer is not None:
        run["peer"] = run_peer(args.peer, args.peer_pattern)
        say(f"  peer: {run['peer']['seconds']:.3f} s, ratio {run['peer']['seconds'] / run['seconds']:.3f}")
    return run


if __name__ == "__main__":
    main()
