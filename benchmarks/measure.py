"""What the benchmarks share: rounds, statistics, worker processes, the table and the JSON."""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"


class BenchmarkError(RuntimeError):
    """A measurement that cannot be; its text is one line for the person who asked for it."""


def rotated(names: Sequence[str], rounds: int) -> list[list[str]]:
    """Return the order of the contenders in each round: each round starts one further down the list."""
    return [[names[(start + i) % len(names)] for i in range(len(names))] for start in range(rounds)]


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return `n`, `mean`, `sd` (of a sample, None for one value), `median`, `min`, `max` and all `values`."""
    if not values:
        raise BenchmarkError("Expected at least one measured value, got none.")
    return {
        "n": len(values),
        "mean": statistics.fmean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else None,
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


def ratios(values: Mapping[str, Sequence[float]], peers: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return for each contender the `summary` of its ratio to the best peer, round by round.

    In one round all contenders meet the same machine; what slows the machine for a while cancels.

    Args:
        values: contender -> one value per round, larger is better.
        peers: contenders of which the one with the largest value of a round is 1 in that round.
    """
    best = [max(of_round) for of_round in zip(*(values[peer] for peer in peers), strict=True)]
    return {name: summary([v / b for v, b in zip(of, best, strict=True)]) for name, of in values.items()}


def expect_torch(*, needed: bool = False) -> None:
    """Raise BenchmarkError where PyTorch is not installed; `needed` where the script has no --no-torch."""
    if importlib.util.find_spec("torch") is None:
        raise BenchmarkError(
            "Expected PyTorch as the peer, got none; do install it (pip install torch==2.13.0)"
            + ("." if needed else " or pass --no-torch.")
        )


def cpus(threads: int) -> list[int]:
    """Return the first `threads` of the CPUs this process may use; BenchmarkError where there are fewer."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    if not 1 <= threads <= len(allowed):
        raise BenchmarkError(f"Expected 1 to {len(allowed)} threads (CPUs of this process), got {threads}.")
    return list(allowed[:threads])


class Worker:
    """A contender in a process of its own, which waits at a pipe whenever it is not its turn.

    Requests and answers are one line of JSON each (`contender.Channel` is the other end).

    Args:
        name: for messages.
        script: file in this folder.
        options: what `Channel.options` gives the script.
    """

    def __init__(self, name: str, script: str, options: Mapping[str, Any]):
        self.name = name
        self._errors = tempfile.TemporaryFile()  # a pipe that nobody reads would fill up
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / script), json.dumps(dict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )

    def ask(self, request: str, *, limit: float | None = None) -> dict[str, Any]:
        """Send a request and wait for its answer.

        BenchmarkError with its last words when the worker dies, or when it needs more than `limit` seconds, after
        which it is killed.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps({"request": request}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died; the empty line below says so
        too_late = threading.Event()
        timer = threading.Timer(limit or 0, lambda: (too_late.set(), self._process.kill()))
        if limit is not None:
            timer.start()
        line = self._process.stdout.readline()
        timer.cancel()
        if not line:
            self._process.wait()
            if too_late.is_set():
                raise BenchmarkError(f"{self.name} stopped: no answer within {limit:g} seconds")
            raise BenchmarkError(f"{self.name} stopped: {self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}, no message"

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.close()  # the end of its input is the end of its work
        except BrokenPipeError:
            pass
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def say(text: str) -> None:
    """Tell the person who waits; the table alone goes to stdout."""
    print(text, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows of text as a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[int] = (0,)) -> str:
    """Return rows of text as a table in Markdown: the columns `left` to the left, the others to the right.

    A bar in a cell is escaped.
    """
    aligned = ["---" if column in left else "---:" for column in range(len(header))]
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [header, *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], aligned, *cells[1:]])


def versions(*packages: str) -> dict[str, str | None]:
    """Return the installed version of each package, None where there is none."""
    return {name: metadata.version(name) if importlib.util.find_spec(name) else None for name in packages}


def write_json(path: Path, benchmark: str, measured: Mapping[str, Any], **environment: Any) -> None:
    """Write a result with all that is needed to read it: date, command, revision, hardware, versions.

    These are as they were at the first result of this process, since a result that is written changes the checkout.

    Args:
        path: where.
        benchmark: name of the script.
        measured: what it found.
        **environment: what `cnnlab.training.describe_environment` does not know (threads, other versions).
    """
    content = {"benchmark": benchmark, "environment": {**_environment(), **environment}, **measured}
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.new")  # an interruption leaves the old file, not half a new one
    whole.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    whole.replace(path)


@cache
def _environment() -> dict[str, Any]:
    from cnnlab.training import describe_environment

    return describe_environment()


def update_page(page: Path, name: str, text: str, *, code: bool = True) -> None:
    """Put a table between the markers `<!-- NAME: begin ... -->` and `<!-- NAME: end -->` of a page.

    Args:
        page: a Markdown file.
        name: of the markers.
        text: what to put there.
        code: as it is printed; False leaves it to be read as Markdown.
    """
    from cnnlab.report.marked import replace_marked

    try:
        replace_marked(page, name, f"```\n{text}\n```" if code else text)
    except ValueError as error:
        raise BenchmarkError(str(error)) from error
