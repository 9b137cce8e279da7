"""What one call of a compiled step costs on the host: the state as plain arrays, as an `nnx.State`, as a module.

    python benchmarks/dispatch.py                    # a minute on two cores
    python benchmarks/dispatch.py --model resnet18

Every array of the state (parameters, batch statistics, momentum, counters) is replaced by one number, and the compiled
program adds one to each: next to nothing to compute, so that the time is that of handing arrays and their structure
over. All kinds take turns.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import optax
from flax import nnx
from measure import RESULTS, BenchmarkError, rotated, summary, table, update_page, write_json

import cnnlab

PLAIN, STATE, MODULE = "TrainState (plain arrays)", "nnx.State under jax.jit", "module and optimiser under nnx.jit"
_CALLS = 20


def main(arguments: list[str] | None = None) -> None:
    """Read the options, measure, print the table, write JSON and page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="resnet34", help="a registered network (resnet34)")
    parser.add_argument("--rounds", type=int, default=5, help="times each is timed (5)")
    parser.add_argument("--out", type=Path, default=RESULTS / "dispatch.json", help="the JSON file to write")
    parser.add_argument("--page", type=Path, help="put the table into this page of the docs too")
    args = parser.parse_args(arguments)
    try:
        if args.rounds < 1:
            raise BenchmarkError(f"Expected --rounds of at least 1, got {args.rounds}.")
        found = measure(args.model, args.rounds)
    except (BenchmarkError, ValueError) as error:
        sys.exit(f"dispatch.py: {error}")
    print(report(found))
    write_json(args.out, "dispatch", {"settings": {"model": args.model, "rounds": args.rounds}, **found})
    if args.page is not None:
        update_page(args.page, "dispatch", f"{describe_run(args.out)}\n\n{report(found)}")
    print(f"\n{args.out}")


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Return the arrays that each kind hands over, and the `summary` of its milliseconds a call."""
    tx = optax.sgd(0.1, momentum=0.9)

    def whole() -> tuple[nnx.Module, nnx.Optimizer]:
        model = cnnlab.create_model(name)
        return model, nnx.Optimizer(model, tx, wrt=nnx.Param)

    state = cnnlab.TrainState.create(cnnlab.create_model(name), tx)
    leaves = len(jax.tree.leaves(state))
    modules = whole()
    nnx.update(modules, jax.tree.map(_one_number, nnx.state(modules)))
    calls = {
        PLAIN: _repeated(jax.tree.map(_one_number, state)),
        STATE: _repeated(jax.tree.map(_one_number, nnx.state(whole()))),
        MODULE: _of_modules(*modules),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in calls}
    for kind in calls:
        calls[kind]()  # compiles
    for order in rotated(list(calls), rounds):
        for kind in order:
            seconds[kind].append(calls[kind]())
    return {"arrays": leaves, "milliseconds": {kind: summary([1e3 * s for s in v]) for kind, v in seconds.items()}}


def _one_number(x: jax.Array) -> jax.Array:
    return x if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key) else jax.numpy.zeros((), x.dtype)


def _add_one(tree: Any) -> Any:
    return jax.tree.map(lambda x: x if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key) else x + 1, tree)


def _repeated(tree: Any) -> Callable[[], float]:
    """Return a function that calls the program again and again on what it gave, and gives the seconds a call."""
    program = jax.jit(_add_one, donate_argnums=0)

    def run() -> float:
        nonlocal tree
        start = time.perf_counter()
        for _ in range(_CALLS):
            tree = program(tree)
        jax.block_until_ready(tree)
        return (time.perf_counter() - start) / _CALLS

    return run


def _of_modules(model: nnx.Module, optimizer: nnx.Optimizer) -> Callable[[], float]:
    """Do the same to a module and its optimiser, which `nnx.jit` takes apart and puts together at each call."""

    @nnx.jit
    def program(model: nnx.Module, optimizer: nnx.Optimizer) -> None:
        nnx.update((model, optimizer), _add_one(nnx.state((model, optimizer))))

    def run() -> float:
        start = time.perf_counter()
        for _ in range(_CALLS):
            program(model, optimizer)
        jax.block_until_ready(jax.tree.leaves(nnx.state(model)))
        return (time.perf_counter() - start) / _CALLS

    return run


def describe_run(path: Path) -> str:
    """Return one line on a result: network, hardware, versions, rounds."""
    result = json.loads(path.read_text(encoding="utf-8"))
    env, settings = result["environment"], result["settings"]
    return (
        f"{settings['model']}, {result['arrays']} arrays; {env['cpu']}; Python {env['python']}, jax {env['jax']}, "
        f"flax {env['flax']}; {settings['rounds']} rounds of {_CALLS} calls; {env['started'][:10]}"
    )


def report(found: dict[str, Any]) -> str:
    """Return the table, in milliseconds a call."""
    rows = [
        [kind, *(f"{of[key]:.2f}" for key in ("median", "min", "max"))] for kind, of in found["milliseconds"].items()
    ]
    return table(["milliseconds a call", "median", "min", "max"], rows)


if __name__ == "__main__":
    main()
