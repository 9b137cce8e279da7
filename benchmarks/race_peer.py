"""The peer of the race: the user's own script, run as a process of its own, once per round."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from measure import BenchmarkError


def expect_script(path: Path) -> None:
    """Raise BenchmarkError when there is no file at the path."""
    if not path.is_file():
        raise BenchmarkError(f"Expected the script of a peer at {path}, got no such file.")


def run_peer(path: Path, pattern: str | None = None) -> dict[str, Any]:
    """Run `python PATH` and return its `wall_seconds`, and `seconds`: those that it reports, else the same.

    Args:
        path: the script; it runs in its own folder, with this interpreter.
        pattern: regular expression whose first group is the seconds in what the script prints; the last match counts.

    Raises:
        BenchmarkError: no such script, it fails, or it prints nothing that the pattern matches.
    """
    expect_script(path)
    start = time.perf_counter()
    done = subprocess.run([sys.executable, path.name], cwd=path.parent, capture_output=True, text=True)
    wall = time.perf_counter() - start
    if done.returncode:
        words = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BenchmarkError(f"{path.name} stopped: {words}")
    seconds = wall
    if pattern is not None:
        seconds = reported_seconds(done.stdout, pattern)
    return {"seconds": seconds, "wall_seconds": wall}


def reported_seconds(output: str, pattern: str) -> float:
    """Return the first group of the last match of the pattern, as a number; BenchmarkError when there is none."""
    try:
        found = [match.group(1) for match in re.finditer(pattern, output)]
        return float(found[-1])
    except IndexError:
        raise BenchmarkError(
            f"Expected a match with a group for the seconds of {pattern!r} in what the peer prints, got none."
        ) from None
    except (re.error, ValueError) as error:
        raise BenchmarkError(f"Expected --peer-pattern to find a number of seconds, got: {error}.") from error
