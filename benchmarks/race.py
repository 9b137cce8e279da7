"""The race: CIFAR-10 to a mean test accuracy of 94 (95, 96) %, as fast as can be, by the rules of docs/race.md.

    python benchmarks/race.py --target 94 --runs 1                 # on a CPU about an hour per run
    python benchmarks/race.py --recipe race94-muon --runs 200 --dtype bfloat16                   # on a GPU
    python benchmarks/race.py --recipe race94-muon --dtype bfloat16 --profile profiles/race94-muon
    python benchmarks/race.py --target 94 --quick                  # does it work? a minute, a few images, one epoch

docs/race.md has the commands that bring a peer's script along. Each finished run is a line in a .jsonl file beside the
JSON; the same command goes on after the last one.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from measure import RESULTS, BenchmarkError, say, update_page, versions, write_json
from race_peer import Peer, add_peer_options, chosen_peer
from race_results import Finished, append_line, page_table, read_finished, report, summarized

_QUICK_TRAIN, _QUICK_TEST = 5000, 500


def main(arguments: list[str] | None = None) -> None:
    """Read the options, run what is missing, print the table, write the JSON."""
    args = _parser().parse_args(arguments)
    try:
        race(args)
    except BenchmarkError as error:
        sys.exit(f"race.py: {error}")
    except KeyboardInterrupt:
        say("race.py: interrupted; finished runs are kept, and the same command without --fresh goes on after them")
        sys.exit(130)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", type=int, choices=(94, 95, 96), help="mean accuracy in percent (the recipe's, 94)")
    parser.add_argument("--recipe", help="race94, race94-muon, race95 or race96; by default race and the target")
    parser.add_argument("--runs", type=int, default=1, help="runs, with seeds from 0 (1)")
    parser.add_argument(
        "--dtype", default="float32", choices=("float32", "bfloat16"), help="of the arithmetic (float32)"
    )
    parser.add_argument("--data-dir", type=Path, help="where CIFAR-10 lies, if cnnlab does not find it")
    parser.add_argument("--json", type=Path, help="the JSON file to write (benchmarks/results/RECIPE_BACKEND.json)")
    parser.add_argument("--fresh", action="store_true", help="forget the runs that are in the .jsonl beside it")
    parser.add_argument("--quick", action="store_true", help="one run of one epoch on a few images")
    parser.add_argument("--page", type=Path, help="put a table of all results, or the profile, into this page too")
    parser.add_argument("--profile", type=Path, help="instead of a race: one run under JAX's profiler, traced there")
    add_peer_options(parser)
    return parser


class Plan(NamedTuple):
    """What is to be run: `cifarnet` with these options by the recipe, with seeds 0 to `runs` - 1."""

    name: str
    target: int
    recipe: Any
    options: dict[str, Any]
    data: Any
    runs: int
    path: Path


def race(args: argparse.Namespace) -> None:
    """Run the race that the options describe; BenchmarkError where it cannot be."""
    peer = chosen_peer(args)
    if peer is not None:
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the peer runs on the same GPU
    if args.profile is not None and peer is not None:
        raise BenchmarkError("Expected --profile without a --peer, got both; do profile in a command of its own.")
    if args.page is not None:
        _expect_markers(args.page, "race" if args.profile is None else "race_profile")
    plan = _plan(args)
    if args.profile is not None:
        _profiled(plan, args)
        return
    settings = _settings(plan, peer)
    lines = plan.path.with_suffix(".jsonl")
    if args.fresh or args.quick:
        lines.unlink(missing_ok=True)
    finished = _all_finished(plan, peer, settings, lines)
    found = summarized(finished.runs, plan.target, finished.rounds, every=_every(plan, peer))
    result = {**found, "petaflop": _petaflop(plan)}
    print(report(result))
    write_json(plan.path, "race", {"settings": settings, **result}, **_environment())
    print(f"\n{plan.path}")
    if args.page is not None:
        update_page(args.page, "race", page_table(plan.path.parent), code=False)


def _plan(args: argparse.Namespace) -> Plan:
    import jax
    from race_run import ENTRIES

    from cnnlab import load_dataset
    from cnnlab.data import DatasetError
    from cnnlab.training import get_recipe
    from cnnlab.training.compilation_cache import use_compilation_cache

    name = args.recipe or f"race{args.target or 94}"
    if name not in ENTRIES:
        raise BenchmarkError(f"Expected --recipe to be one of {', '.join(ENTRIES)}, got {name!r}.")
    target = ENTRIES[name].target
    if args.target not in (None, target):
        raise BenchmarkError(f"Expected --target {target} with {name}, got {args.target}; do leave one of the two out.")
    if args.runs < 1:
        raise BenchmarkError(f"Expected --runs of at least 1, got {args.runs}.")
    use_compilation_cache()
    recipe, runs = get_recipe(name).replace(precision=args.dtype), args.runs
    try:
        data = load_dataset("cifar10", args.data_dir)
    except DatasetError as error:
        raise BenchmarkError(str(error)) from error
    if args.quick:
        train, test = (split.take(slice(n)) for split, n in ((data.train, _QUICK_TRAIN), (data.test, _QUICK_TEST)))
        data, runs = dataclasses.replace(data, train=train, test=test), 1
        recipe = recipe.replace(epochs=1, warmup_epochs=recipe.warmup_epochs / recipe.epochs)
    suffix = ("_quick" if args.quick else "") + ("_profile" if args.profile is not None else "")
    path = args.json or RESULTS / f"{name.replace('-', '_')}_{jax.default_backend()}{suffix}.json"
    return Plan(name, target, recipe, ENTRIES[name].options, data, runs, path)


def _settings(plan: Plan, peer: Peer | None) -> dict[str, Any]:
    """What every run of a file has in common."""
    import jax

    return {
        "target": plan.target,
        "recipe": plan.recipe.to_dict(),
        "network": {"name": "cifarnet", "options": plan.options},
        "device": jax.devices()[0].device_kind,
        "train_images": len(plan.data.train),
        "test_images": len(plan.data.test),
        "data": plan.data.fingerprint,
        "test_time_augmentation": "multi-crop",
        "peer": None if peer is None else peer.settings(),
    }


def _all_finished(plan: Plan, peer: Peer | None, settings: Mapping[str, Any], lines: Path) -> Finished:
    """Run what the file of lines lacks, round by round, and return everything; each part is saved when it ends."""
    known = read_finished(lines, settings)
    runs, rounds = {run["seed"]: run for run in known.runs}, {of["round"]: of for of in known.rounds}
    missing, every = [seed for seed in range(plan.runs) if seed not in runs], _every(plan, peer)
    say(f"{plan.name} on {settings['device']}: {len(runs)} runs done, {len(missing)} to go")
    racer = _racer(plan) if missing else None
    code = _code()
    for number, first in enumerate(range(0, plan.runs, every)):
        for seed in range(first, min(first + every, plan.runs)):
            if racer is not None and seed not in runs:
                runs[seed] = {**racer.run(seed), "code": code}
                append_line(lines, settings, runs[seed])
                say(f"seed {seed}: {_told(runs[seed])}")
        if peer is not None and number not in rounds:
            rounds[number] = {"round": number, **peer.run(lines.with_name(f"{plan.path.stem}_peer_{number}.log"))}
            append_line(lines, settings, rounds[number])
            seconds = rounds[number]["seconds"]
            say(f"  peer: {sum(seconds) / len(seconds):.3f} s, mean of {len(seconds)}")
    wanted = [of for number, of in sorted(rounds.items()) if number * every < plan.runs]
    return Finished([runs[seed] for seed in range(plan.runs)], wanted)


def _every(plan: Plan, peer: Peer | None) -> int:
    """How many runs of ours make a round."""
    return plan.runs if peer is None else peer.every


def _racer(plan: Plan) -> Any:
    from race_run import Racer

    racer = Racer(plan.recipe, plan.options, plan.data, say)
    say(f"compiled and warmed up in {racer.warm_up():.1f} s")
    return racer


def _profiled(plan: Plan, args: argparse.Namespace) -> None:
    """One run of seed 0 under the profiler, in no race; print, write and, with a page, show where its time went."""
    from race_profile import profile, profile_report

    found = profile(_racer(plan), args.profile)
    say(f"seed 0, under the profiler: {_told(found['run'])}")
    title = f"{plan.name}, {plan.recipe.precision}"
    print(profile_report(title, found))
    recipe = {"recipe": plan.recipe.to_dict(), "options": plan.options}
    write_json(plan.path, "race_profile", {"settings": recipe, **found}, **_environment())
    print(f"\n{plan.path}\nthe trace, for xprof or ui.perfetto.dev: {args.profile}")
    if args.page is not None:
        update_page(args.page, "race_profile", profile_report(title, found))


def _told(run: Mapping[str, Any]) -> str:
    plain = f"without test-time augmentation {run['accuracy_plain']:.2f} %"
    return f"{run['seconds']:.3f} s, {run['accuracy']:.2f} % ({plain})"


def _petaflop(plan: Plan) -> dict[str, float]:
    from race_facts import petaflop

    side = plan.data.train.images.shape[1]
    return petaflop(plan.recipe, plan.options, len(plan.data.train), len(plan.data.test), side)


def _environment() -> dict[str, Any]:
    from race_facts import describe_device

    return {**versions("scipy"), **describe_device()}


def _code() -> dict[str, Any]:
    """What a run was made by, kept with each, since a file of lines may grow over several calls."""
    from cnnlab.training import describe_environment

    found = describe_environment()
    own = found["cnnlab_revision"] is not None
    keys = ("cnnlab_revision", "cnnlab_dirty") if own else ("git_revision", "git_dirty")
    return {"revision": found[keys[0]], "dirty": found[keys[1]], "jax": found["jax"]}


def _expect_markers(page: Path, name: str) -> None:
    """Raise BenchmarkError before anything runs where the page has no place for the table."""
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"Expected a page at {page}, got: {error.strerror}.") from error
    begin, end = f"<!-- {name}: begin", f"<!-- {name}: end -->"
    if (text.count(begin), text.count(end)) != (1, 1):
        raise BenchmarkError(f"Expected '{begin} -->' and '{end}' in {page}, each once; do put them there.")


if __name__ == "__main__":
    main()
