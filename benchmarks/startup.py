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

# By `fit`, as people start. One batch is the whole epoch, so the first report of steps is that of the first step.
_FIRST_STEP = """
import json, time
from jax import monitoring
import numpy as np
import cnnlab
from cnnlab.data import Dataset, Split
from cnnlab.training.callbacks import Callback

heard = []
monitoring.register_event_listener(lambda event, **about: heard.append(event.rpartition("/")[2]))

class Watch(Callback):
    def on_compile(self, seconds):
        if seconds is not None:
            self.compile_seconds = seconds
    def on_steps(self, epoch, done, total):
        self.first_step = getattr(self, "first_step", time.time())
        self.compiled = heard.count("compile_requests_use_cache") - heard.count("cache_hits")

watch = Watch()
batch = Split(np.zeros((32, 32, 32, 3), np.uint8), np.arange(32, dtype=np.int32) % 10)
data = Dataset("patterns", batch, batch, tuple("0123456789"), "made here", "0" * 16)
recipe = cnnlab.get_recipe("thesis").replace(epochs=1)
cnnlab.fit("lenet", data, recipe, callbacks=[watch], progress=False)
print(json.dumps({key: getattr(watch, key) for key in ("first_step", "compile_seconds", "compiled")}))
"""


def main(arguments: list[str] | None = None) -> None:
    """Read the options, measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5, help="times each start is timed (5)")
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.json", help="the JSON file to write")
    parser.add_argument("--page", type=Path, help="put the table into this page of the docs too")
    args = parser.parse_args(arguments)
    try:
        if args.repeats < 1:
            raise BenchmarkError(f"Expected --repeats of at least 1, got {args.repeats}.")
        os.environ["JAX_PLATFORMS"] = "cpu"
        first_steps, programs = time_first_steps(args.repeats)
        found = {**time_imports(args.repeats), **first_steps}
    except BenchmarkError as error:
        sys.exit(f"startup.py: {error}")
    print(report(found))
    write_json(args.out, "startup", {"settings": {"repeats": args.repeats}, "seconds": found, "programs": programs})
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


def time_first_steps(repeats: int) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """Return the `summary` of seconds to the first step and of compilation, cold and warm, and what the cache held.

    Cold: cnnlab's cache is an empty folder. Warm: the second start with that folder. Nothing else is set: what is kept
    there is what cnnlab keeps by default.

    Returns:
        The seconds; and the programs that were compiled cold and warm before the end of the first step, the files that
        a whole run left, and their bytes, all of the last repeat.
    """
    seconds: dict[str, list[float]] = {}
    programs: dict[str, int] = {}
    for turn in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for kind in ("cold", "warm"):
                start = time.time()
                answer = run(_FIRST_STEP, CNNLAB_CACHE=cache)
                seconds.setdefault(f"first step, {kind}", []).append(answer["first_step"] - start)
                seconds.setdefault(f"compilation therein, {kind}", []).append(answer["compile_seconds"])
                programs[f"compiled_{kind}"] = answer["compiled"]
            sizes = [file.stat().st_size for file in Path(cache, "compiled").glob("*") if file.is_file()]
            programs |= {"files": len(sizes), "bytes": sum(sizes)}
        say(f"first steps: {turn + 1} of {repeats}")
    return {name: summary(values) for name, values in seconds.items()}, programs


def without_cache_settings() -> dict[str, str]:
    """Return this process' variables but for all that say where and which compiled programs are kept."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("CNNLAB_CACHE", "CNNLAB_COMPILATION_CACHE")
        and not name.startswith(("JAX_COMPILATION_CACHE", "JAX_ENABLE_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE"))
    }


def run(code: str, **variables: str) -> dict[str, Any]:
    """Run code in a fresh interpreter and return the JSON object it prints last; BenchmarkError when it fails."""
    environment = {**without_cache_settings(), **variables}
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
    env, repeats, programs = result["environment"], result["settings"]["repeats"], result["programs"]
    return (
        f"{env['cpu']}; Python {env['python']}, jax {env['jax']}; {repeats} repeats; {env['started'][:10]}\n"
        f"programs compiled up to the first step: {programs['compiled_cold']} cold, {programs['compiled_warm']} warm; "
        f"a run leaves {programs['files']} in the cache, {programs['bytes'] / 1e6:.1f} MB"
    )


def report(found: dict[str, dict[str, Any]]) -> str:
    """Return the table, in seconds."""
    rows = [[name, *(f"{of[key]:.3f}" for key in ("median", "min", "max"))] for name, of in found.items()]
    return table(["seconds", "median", "min", "max"], rows)


if __name__ == "__main__":
    main()
