"""What a person sees of loading, on standard error: one progress bar, and a line where there is something to say."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec


@contextmanager
def progress_bar(
    description: str, total: int, *, enabled: bool = True, unit: str = "images"
) -> Iterator[Callable[[int], None]]:
    """Show a bar on standard error while the block runs.

    Args:
        description: what is going on, in a few words.
        total: how many units make it complete.
        enabled: False shows nothing; see also `bars_show`.
        unit: `"images"`, or `"bytes"` for a download (sizes and speed are then shown).

    Yields:
        `advance(n)`: call it when `n` more units are done.
    """
    if not enabled or not bars_show():
        yield lambda n: None
        return

    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    done = [DownloadColumn(), TransferSpeedColumn()] if unit == "bytes" else [MofNCompleteColumn()]
    columns = [TextColumn("{task.description}"), BarColumn(), *done, TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(description, total=total)
        yield lambda n: bars.advance(task, n)


def bars_show() -> bool:
    """Whether bars can be drawn: standard error is a terminal or a notebook, and `rich` is installed."""
    if find_spec("rich") is None:
        return False
    from rich.console import Console

    return sys.stderr.isatty() or Console(stderr=True).is_jupyter


def notice(text: str) -> None:
    """Say something that matters even when no progress is wanted: one line on standard error."""
    print(f"cnnlab: {text}", file=sys.stderr)
