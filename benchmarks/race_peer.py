"""The peer of the race: the user's own script, run as a process of its own after every few runs of ours."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import BenchmarkError, say

_VERSIONS = """
import json, platform
from importlib.metadata import PackageNotFoundError, version
found = {"python": platform.python_version()}
for name in ("torch", "torchvision", "triton", "numpy", "jax", "tinygrad"):
    try:
        found[name] = version(name)
    except PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def add_peer_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `chosen_peer` reads."""
    parser.add_argument("--peer", type=Path, help="a script of yours, run in its folder after every few runs of ours")
    parser.add_argument("--peer-python", metavar="PATH", help="the interpreter it runs in (this one)")
    parser.add_argument("--peer-args", metavar="TEXT", help="its arguments, as --peer-args='--epochs 8'")
    parser.add_argument("--peer-pattern", help="regular expression whose group finds the seconds of each run it prints")
    parser.add_argument("--peer-warm-up", type=int, help="how many of these runs, from the first on, do not count (0)")
    parser.add_argument("--peer-every", type=int, help="after how many runs of ours it is called (1)")


def chosen_peer(args: argparse.Namespace) -> Peer | None:
    """Return the peer that the options describe, None for none; BenchmarkError for what cannot be."""
    options = ("peer_python", "peer_args", "peer_pattern", "peer_warm_up", "peer_every")
    given = [f"--{name.replace('_', '-')}" for name in options if getattr(args, name) is not None]
    if args.peer is None:
        if given:
            raise BenchmarkError(f"Expected --peer with {' and '.join(given)}, got none; do name the peer's script.")
        return None
    if not args.peer.is_file():
        raise BenchmarkError(f"Expected the script of a peer at {args.peer}, got no such file.")
    python = shutil.which(args.peer_python or sys.executable)
    if python is None:
        raise BenchmarkError(f"Expected an interpreter at --peer-python, got {args.peer_python!r}.")
    warm_up, every = args.peer_warm_up or 0, 1 if args.peer_every is None else args.peer_every
    if every < 1 or warm_up < 0:
        raise BenchmarkError(
            f"Expected --peer-every of at least 1 and --peer-warm-up of at least 0, got {every} and {warm_up}."
        )
    if args.peer_pattern is None and (every > 1 or warm_up):
        raise BenchmarkError(
            "Expected --peer-pattern with --peer-every or --peer-warm-up, got none: the seconds of a whole process "
            "do not tell its runs apart."
        )
    try:
        groups = 1 if args.peer_pattern is None else re.compile(args.peer_pattern).groups
    except re.error as error:
        raise BenchmarkError(f"Expected a regular expression as --peer-pattern, got: {error}.") from error
    if groups != 1:
        raise BenchmarkError(f"Expected --peer-pattern with one group, that of the seconds, got {groups} groups.")
    # Made absolute, as the script runs in its own folder; not resolved, as a virtual environment's is a link.
    words = tuple(shlex.split(args.peer_args or ""))
    return Peer(args.peer, os.path.abspath(python), words, args.peer_pattern, warm_up, every)


@dataclass(frozen=True)
class Peer:
    """A script that trains to the same accuracy, once or many times in one call.

    Attributes:
        script: the file; it runs in its own folder.
        python: the interpreter.
        arguments: of the script.
        pattern: regular expression whose group is the seconds of a run, wherever it matches in what the script prints;
            None takes those of the whole process for one run.
        warm_up: matches at the beginning that are no runs.
        every: runs of ours before each call.
    """

    script: Path
    python: str
    arguments: tuple[str, ...] = ()
    pattern: str | None = None
    warm_up: int = 0
    every: int = 1

    def settings(self) -> dict[str, Any]:
        """Return what its runs have in common: script with SHA-256, arguments, versions, how its runs are counted."""
        return {
            "script": self.script.name,
            "sha256": hashlib.sha256(self.script.read_bytes()).hexdigest(),
            "arguments": list(self.arguments),
            "pattern": self.pattern,
            "warm_up": self.warm_up,
            "every": self.every,
            "versions": self._versions(),
        }

    def run(self, log: Path) -> dict[str, Any]:
        """Run the script and return `seconds`, those of each of its runs, and `wall_seconds` of the whole process.

        Args:
            log: file that keeps what it prints, errors as well.

        Raises:
            BenchmarkError: it fails, or prints nothing that the pattern matches.
        """
        say(f"  peer: {self.script.name}, prints into {log}")
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [self.python, self.script.name, *self.arguments]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}  # the log can be watched
        start = time.perf_counter()
        with log.open("w", encoding="utf-8") as file:
            done = subprocess.run(
                command, cwd=self.script.parent, env=environment, stdout=file, stderr=subprocess.STDOUT
            )
        wall = time.perf_counter() - start
        printed = log.read_text(encoding="utf-8", errors="replace")
        if done.returncode:
            words = (printed.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise BenchmarkError(f"{self.script.name} stopped: {words}")
        if self.pattern is None:
            return {"seconds": [wall], "wall_seconds": wall}
        try:
            seconds = reported_seconds(printed, self.pattern)
        except (TypeError, ValueError) as error:  # a group that is optional may have no text
            raise BenchmarkError(
                f"Expected --peer-pattern to find numbers of seconds in {log}, got: {error}."
            ) from error
        if len(seconds) <= self.warm_up:
            raise BenchmarkError(
                f"Expected more than {self.warm_up} matches of {self.pattern!r} in {log}, got {len(seconds)}; "
                "do look what the script prints, and change --peer-pattern or --peer-warm-up."
            )
        return {"seconds": seconds[self.warm_up :], "wall_seconds": wall}

    def _versions(self) -> dict[str, str]:
        done = subprocess.run([self.python, "-c", _VERSIONS], capture_output=True, text=True)
        try:
            return json.loads(done.stdout)
        except ValueError:
            raise BenchmarkError(f"Expected a Python interpreter at --peer-python, got {self.python}.") from None


def reported_seconds(output: str, pattern: str) -> Sequence[float]:
    """Return the group of every match of the pattern as a number; ValueError or TypeError for what is none."""
    return [float(match.group(1)) for match in re.finditer(pattern, output)]
