"""What a start costs: `import cnnlab` over JAX, Flax and optax, and the time to the first training step.

    python benchmarks/startup.py                  # about 3 minutes on two cores
    python benchmarks/startup.py --repeats 3

Everything is timed in fresh interpreters that run one after the other, in turn; benchmarks/README.md tells
what is timed and how to read the result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import RESULTS, BenchmarkError, rotated, say, summary, table, update_page, write_json

_LIBRARIES = "import jax, flax, optax"
# The seconds of the second statement, after the first in the same interpreter.
_IMPORT = """
import json, time
{before}
start = time.perf_counter()
{statement}
print(json.dumps({{"seconds": time.perf_counter() - start}}))
"""
_FACE = "import cnnlab\nfor name in cnnlab.__all__: getattr(cnnlab, name)"
_IMPORTS = {
    _LIBRARIES: ("pass", _LIBRARIES),
    "import cnnlab, after these": (_LIBRARIES, "import cnnlab"),
    "every public name of cnnlab, after these": (_LIBRARIES, _FACE),
}

# One batch is the whole epoch, so the first report of steps is that of the first step.
_FIRST_STEP = """
import json, time
import numpy as np
import cnnlab
from cnnlab.data import Split
from cnnlab.training import Trainer
from cnnlab.training.callbacks import Callback

class Watch(Callback):
    def on_compile(self, seconds):
        if seconds is not None:
            self.compile_seconds = seconds
    def on_steps(self, epoch, done, total):
        self.first_step = getattr(self, "first_step", time.time())

watch = Watch()
batch = Split(np.zeros((32, 32, 32, 3), np.uint8), np.zeros(32, np.int32))
recipe = cnnlab.get_recipe("thesis").replace(epochs=1)
Trainer(recipe, batch, batch, "test").run(cnnlab.create_model("lenet"), callbacks=[watch])
print(json.dumps({"first_step": watch.first_step, "compile_seconds": watch.compile_seconds}))
"""


def main(arguments: list[str] | None = None) -> None:
    """Read the options, measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="times each start is timed (5)")
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json", help="the JSON file to write")
    parser.add_argument("--page", type=Path, help="put the table into this page of the docs too")
    args = parser.parse_args(arguments)
    try:
        if args.repeats < 1:
            raise BenchmarkError(f"Expected --repeats of at least 1, got {args.repeats}.")
        os.environ["JAX_PLATFORMS"] = "cpu"
        found = {**time_imports(args.repeats), **time_first_steps(args.repeats)}
    except BenchmarkError as error:
        sys.exit(f"startup.py: {error}")
    print(report(found))
    write_json(args.out, "startup", {"settings": {"repeats": args.repeats}, "seconds": found})
    if args.page is not None:
        update_page(args.page, "startup", f"{describe_run(args.out)}\n\n{report(found)}")
    print(f"\n{args.out}")


def time_imports(repeats: int) -> dict[str, dict[str, Any]]:
    """Return for each kind of import the `summary` of its seconds; one more, first, turn fills the file cache."""
    seconds: dict[str, list[float]] = {name: [] for name in _IMPORTS}
    for turn, names in enumerate(rotated(list(_IMPORTS), repeats + 1)):
        for name in names:
            before, statement = _IMPORTS[name]
            answer = run(_IMPORT.format(before=before, statement=statement))
            if turn:
                seconds[name].append(answer["seconds"])
        say(f"imports: {turn} of {repeats}")
    return {name: summary(values) for name, values in seconds.items()}


def time_first_steps(repeats: int) -> dict[str, dict[str, Any]]:
    """Return the `summary` of seconds to the first step and of compilation, cold and from JAX's disk cache."""
    seconds: dict[str, list[float]] = {}
    for turn in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for kind in ("cold", "warm"):
                start = time.time()
                answer = run(_FIRST_STEP, **cache_in(cache))
                seconds.setdefault(f"first step, {kind}", []).append(answer["first_step"] - start)
                seconds.setdefault(f"compilation therein, {kind}", []).append(answer["compile_seconds"])
        say(f"first steps: {turn + 1} of {repeats}")
    return {name: summary(values) for name, values in seconds.items()}


def cache_in(folder: str) -> dict[str, str]:
    """Return the variables that make JAX keep every compiled program in `folder`."""
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_ENABLE_COMPILATION_CACHE": "true",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


def run(code: str, **variables: str) -> dict[str, Any]:
    """Run code in a fresh interpreter and return the JSON object it prints last; BenchmarkError when it fails."""
    environment = {**os.environ, **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise BenchmarkError(f"a timed interpreter stopped: {(done.stderr.strip().splitlines() or ['no message'])[-1]}")
    return parse(done.stdout)


def parse(output: str) -> dict[str, Any]:
    """Return the JSON object on the last line; whatever a library printed before it does not matter."""
    lines = output.strip().splitlines()
    try:
        value = json.loads(lines[-1])
    except (IndexError, ValueError):
        value = None
    if not isinstance(value, dict):
        raise BenchmarkError(f"Expected a JSON object on the last line, got {lines[-1] if lines else 'no output'!r}.")
    return value


def describe_run(path: Path) -> str:
    """Return one line on a result: hardware, versions, repeats."""
    result = json.loads(path.read_text(encoding="utf-8"))
    env, repeats = result["environment"], result["settings"]["repeats"]
    return f"{env['cpu']}; Python {env['python']}, jax {env['jax']}; {repeats} repeats; {env['started'][:10]}"


def report(found: dict[str, dict[str, Any]]) -> str:
    """Return the table, in seconds."""
    rows = [[name, *(f"{of[key]:.3f}" for key in ("median", "min", "max"))] for name, of in found.items()]
    return table(["seconds", "median", "min", "max"], rows)


if __name__ == "__main__":
    main()
