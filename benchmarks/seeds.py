"""Many seeds of a network: at once in one vectorised program, and one after the other.

    python benchmarks/seeds.py                      # 15 minutes on two cores, most of it ResNet-20
    python benchmarks/seeds.py --only lenet         # a few minutes
    python benchmarks/seeds.py --seeds 2 4 16       # other numbers of seeds

It runs on the device that JAX finds, with two networks: the thesis', whose convolutions are matrix products over blocks
on CPU, and ResNet-20, whose convolutions are dense ones, which is another thing under `vmap` over seeds.
All is timed in this process, in turn; benchmarks/README.md tells what is timed and how to read the result.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from contender import BATCH, PARAMETERS, make_data
from measure import (
    RESULTS,
    BenchmarkError,
    cpus,
    ratios,
    rotated,
    say,
    summary,
    table,
    update_page,
    write_json,
)

if TYPE_CHECKING:
    from cnnlab.data import Split
    from cnnlab.training.epoch import Epoch

ONE = "one seed"


class Network(NamedTuple):
    """What is trained: a network, its batch, and the steps of a pass on CPU and elsewhere.

    `recipe` is a named one with some fields changed; the rate is constant within a pass either way.
    """

    name: str
    parameters: int
    batch_size: int
    steps: tuple[int, int]
    recipe: dict[str, Any]


NETWORKS = (
    Network("lenet", PARAMETERS, BATCH, (200, 1000), {}),
    Network("resnet20", 269_722, 128, (4, 100), {"noise": 0.0, "flip": "random", "crop": 4, "weight_decay": 1e-4}),
)


def main(arguments: list[str] | None = None) -> None:
    """Read the options, measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    names = [network.name for network in NETWORKS]
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=names, default=names, help="these networks only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 4, 8], help="numbers of seeds beside one (2 4 8)")
    parser.add_argument("--rounds", type=int, default=5, help="times each contender is timed (5)")
    parser.add_argument(
        "--steps", type=int, help="training steps per seed and time (lenet 200, resnet20 4; more on a GPU)"
    )
    parser.add_argument("--threads", type=int, help="CPUs to use (all that this process may)")
    parser.add_argument("--out", type=Path, help="the JSON file to write (results/seeds.json, seeds_gpu.json on a GPU)")
    parser.add_argument("--page", type=Path, help="put the table into this page of the docs too")
    args = parser.parse_args(arguments)
    try:
        if args.rounds < 1 or (args.steps is not None and args.steps < 1) or min(args.seeds) < 1:
            raise BenchmarkError("Expected --rounds, --steps and --seeds of at least 1.")
        threads = args.threads or len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else [0])
        if args.threads and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cpus(args.threads))  # before JAX starts its threads
        device = find_device()
        out = args.out or RESULTS / ("seeds.json" if device == "cpu" else f"seeds_{device}.json")
        settings: dict[str, Any] = {"device": device, "rounds": args.rounds, "threads": threads, "networks": {}}
        found: dict[str, Any] = {}
        for network in NETWORKS:
            if network.name not in args.only:
                continue
            steps = args.steps or network.steps[device != "cpu"]
            settings["networks"][network.name] = {"steps": steps, "batch_size": network.batch_size}
            found[network.name] = measure(network, sorted({1, *args.seeds}), rounds=args.rounds, steps=steps)
            write_json(out, "seeds", {"settings": settings, "networks": found})
        print(report(found))
        if args.page is not None:
            name = "seeds" if device == "cpu" else f"seeds_{device}"
            update_page(args.page, name, f"{describe_run(out)}\n\n{report(found)}")
    except BenchmarkError as error:
        sys.exit(f"seeds.py: {error}")
    print(f"\n{out}")


def find_device() -> str:
    """Return "cpu", "gpu" or another kind of device that JAX computes on, so that no result takes another's place."""
    import jax

    return jax.default_backend()


def measure(network: Network, counts: list[int], *, rounds: int, steps: int) -> dict[str, dict[str, Any]]:
    """Compile for all numbers of seeds, then time each once per round, at once and one after the other."""
    import cnnlab
    from cnnlab.data import Split
    from cnnlab.training import make_optimizer, make_train_step
    from cnnlab.training.augment import make_augmentation
    from cnnlab.training.epoch import Epoch, put_on_device

    train = Split(*make_data(steps * network.batch_size // BATCH))
    recipe = cnnlab.get_recipe("thesis").replace(batch_size=network.batch_size, **network.recipe)
    tx = make_optimizer(recipe, steps)
    epoch = Epoch(make_train_step(tx, augment=make_augmentation(recipe, train), jit=False), recipe.batch_size)
    data, contenders = put_on_device(train), {}
    for count in counts:
        contenders[at_once(count)] = [Seeds(network, epoch, data, tx, range(count), recipe.learning_rate)]
        if count > 1:
            each = [Seeds(network, epoch, data, tx, [seed], recipe.learning_rate) for seed in range(count)]
            contenders[one_by_one(count)] = each
    compile_seconds = {}
    for name, parts in contenders.items():
        start = time.perf_counter()
        for part in parts:
            part.warm_up()
        compile_seconds[name] = time.perf_counter() - start
        say(f"{network.name}, {name}: compiled and warm after {compile_seconds[name]:.1f} s")
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number, order in enumerate(rotated([*contenders], rounds), start=1):
        for name in order:
            seconds[name].append(sum(part.run() for part in contenders[name]))
        say(f"{network.name}: round {number} of {rounds}")
    speeds = {
        name: [sum(part.count for part in parts) * len(train) / value for value in seconds[name]]
        for name, parts in contenders.items()
    }
    over_one = ratios(speeds, [ONE])
    found: dict[str, dict[str, Any]] = {}
    for name, parts in contenders.items():
        count = sum(part.count for part in parts)
        losses = [loss for part in parts for loss in part.losses]
        if not all(map(math.isfinite, losses)):
            raise BenchmarkError(f"Expected finite losses of {name}, got {losses}.")
        found[name] = {
            "seeds": count,
            "images_per_second": summary(speeds[name]),
            "ratio_to_one_seed": over_one[name],
            "seconds": seconds[name],
            "warm_up_seconds": compile_seconds[name],
            "losses": losses,
        }
        if name == at_once(count) and count > 1:
            found[name]["ratio_to_one_after_the_other"] = ratios(speeds, [one_by_one(count)])[name]
    return found


class Seeds:
    """Seeds that train at once, or one, an epoch at a time, with the parts that `cnnlab.training.Trainer` is made of.

    Args:
        network: which.
        epoch: the programs, shared by all contenders.
        data: on the device.
        tx: the optimiser.
        seeds: of initial weights and noise.
        rate: the learning rate.
    """

    def __init__(self, network: Network, epoch: Epoch, data: Split, tx: Any, seeds: Any, rate: float):
        import dataclasses

        import jax
        import jax.numpy as jnp
        from flax import nnx

        import cnnlab
        from cnnlab.training import TrainState
        from cnnlab.training.many_seeds import stack

        models = [cnnlab.create_model(network.name, rngs=nnx.Rngs(seed)) for seed in seeds]
        states = [TrainState.create(model, tx, seed=seed) for model, seed in zip(models, seeds, strict=True)]
        parameters = sum(leaf.size for leaf in jax.tree.leaves(states[0].params))
        if parameters != network.parameters:
            raise BenchmarkError(f"Expected {network.parameters} parameters in {network.name}, got {parameters}.")
        state = stack(states)
        scale = jnp.full(state.step.shape, rate, jnp.float32)
        self._state = dataclasses.replace(state, learning_rate_scale=scale)
        self._epoch, self._data = epoch, data
        self.count = len(models)
        self._steps = len(data) // network.batch_size
        self.losses: list[float] = []

    def warm_up(self) -> None:
        """Compile, unless it has been done, and train an epoch."""
        self._epoch.compile(self._state, self._data, None)
        self.run()

    def run(self) -> float:
        """Train one epoch in as few dispatches as the platform rewards; return its seconds."""
        import jax
        import numpy as np

        from cnnlab.training import Metrics
        from cnnlab.training.many_seeds import stack

        totals = jax.block_until_ready(stack([Metrics.zero() for _ in range(self.count)]))
        start = time.perf_counter()
        self._state, totals = self._epoch.run(self._state, totals, self._data, None, 0, self._steps)
        loss = np.asarray(totals.loss)  # the host hears of it: the end of the pass
        seconds = time.perf_counter() - start
        self.losses += np.atleast_1d(loss).tolist()
        return seconds


def at_once(count: int) -> str:
    """Return the name of so many seeds in one program."""
    return ONE if count == 1 else f"{count} at once"


def one_by_one(count: int) -> str:
    """Return the name of so many seeds, each alone."""
    return f"{count} one after the other"


def describe_run(path: Path) -> str:
    """Return one line on a result: hardware, versions, rounds."""
    result = json.loads(path.read_text(encoding="utf-8"))
    env, settings = result["environment"], result["settings"]
    device = f"{env['cpu']}, {settings['threads']} threads"
    if env["backend"] != "cpu":
        device = env["device_kind"]
    steps = ", ".join(f"{name} {of['steps']} of {of['batch_size']} images" for name, of in settings["networks"].items())
    return (
        f"{device}; Python {env['python']}, jax {env['jax']}; {settings['rounds']} rounds; {env['started'][:10]}\n"
        f"steps a round: {steps}"
    )


def report(networks: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the table: images/s of all seeds together, and the ratios of each round."""

    def shown(ratio: dict[str, Any] | None) -> str:
        return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})" if ratio else "-"

    rows = []
    for network, contenders in networks.items():
        for name, found in contenders.items():
            speed = found["images_per_second"]
            other = found.get("ratio_to_one_after_the_other")
            cells = [f"{speed[key]:,.0f}" for key in ("median", "min", "max")]
            first = network if name == ONE else ""
            rows.append([first, name, *cells, shown(found["ratio_to_one_seed"]), shown(other)])
    header = ["network", "contender", "images/s", "min", "max", "over one seed", "over one after the other"]
    return table(header, rows)


if __name__ == "__main__":
    main()
