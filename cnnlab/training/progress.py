"""What a person sees of a run: live on a terminal, plain lines elsewhere."""

from __future__ import annotations

import errno
import shlex
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import flax
import jax
import optax

from .callbacks import Callback


def console_progress(title: str, source: str, folder: Path | None, stream: TextIO | None = None) -> Callback:
    """Return a callback that prints to `stream` (standard output), live only where that is a terminal.

    Args:
        title: what is trained on what.
        source: where the data came from, one line.
        folder: the run folder, named at the end.
        stream: a text stream.
    """
    return _Console(title, source, folder, sys.stdout if stream is None else stream)


class _Console(Callback):
    def __init__(self, title: str, source: str, folder: Path | None, stream: TextIO):
        self._title, self._source, self._folder, self._stream = title, source, folder, stream
        self._live, self._gone = stream.isatty(), False
        self._epochs = 0
        self._epoch_seconds: list[float] = []
        self._width = 0
        self._epoch_start = time.monotonic()

    def on_start(self, info: dict[str, Any]) -> None:
        """Say what runs, on what, with what."""
        from cnnlab import __version__

        self._epochs = info["epochs"]
        trained = info.get("trained", info["parameters"])
        some = f" ({trained:,} of them trained)" if trained != info["parameters"] else ""
        seeds = f"seed {info['seed']}"
        if "seeds" in info:
            seeds = f"seeds {', '.join(map(str, info['seeds']))} at once"
        self._line(f"{self._title}: {info['parameters']:,} parameters{some}, recipe {info['recipe'].name}, {seeds}")
        device = jax.devices()[0]
        self._line(
            f"on {device.device_kind} ({jax.device_count()} {device.platform}), cnnlab {__version__}, "
            f"jax {jax.__version__}, flax {flax.__version__}, optax {optax.__version__}"
        )
        held = ", held out of the training images" if info["monitor"] == "validation" else ""
        self._line(
            f"{info['train_images']:,} training images ({self._source}), "
            f"{info['monitor_images']:,} {info['monitor']} images after each epoch{held}"
        )
        if info["epoch"]:
            self._line(f"going on after epoch {info['epoch']}")

    def on_compile(self, seconds: float | None) -> None:
        """Say that compilation begins, then how long it took."""
        if seconds is None:
            self._replace("compiling ...")
        else:
            self._line(f"compiled in {seconds:.1f} s")
            self._epoch_start = time.monotonic()

    def on_steps(self, epoch: int, done: int, total: int) -> None:
        """Draw the bar of the epoch under way."""
        if not self._live or done == total:
            return
        filled = 24 * done // total
        elapsed = time.monotonic() - self._epoch_start
        bar = "━" * filled + "╌" * (24 - filled)
        self._replace(f"epoch {epoch:3d}  {bar}  {done}/{total} steps, {_duration(elapsed)}")

    def on_epoch(self, record: dict[str, Any]) -> None:
        """Print the line of a finished epoch."""
        self._epoch_seconds.append(record["seconds"])
        self._epoch_start = time.monotonic()
        recent = self._epoch_seconds[-5:]
        left = (self._epochs - record["epoch"]) * sum(recent) / len(recent)
        event = {"cut": "  rate cut", "converged": "  converged", "target": "  target reached"}
        star = "*" if record["best_epoch"] == record["epoch"] else " "
        best = f"best {record['best_accuracy']:.2%} ({record['best_epoch']})  rate {record['learning_rate']:.1e}"
        if "seeds" in record:
            count = len(record["seeds"])
            best = f"best {record['best_accuracy']:.2%} (means of {count})  {record['training']} go on"
        self._line(
            f"epoch {record['epoch']:3d}/{self._epochs}  loss {record['train_loss']:.4f}  "
            f"{record['monitor']} loss {record['loss']:.4f}  accuracy {record['accuracy']:7.2%}{star} {best}  "
            f"{record['images_per_second']:,.0f} images/s  at most {_duration(left)} left"
            + event.get(record["event"] or "", "")
        )

    def on_stop(self, reason: str) -> None:
        """Say why it ended, and how to go on after an interruption."""
        self._line(reason)
        if reason.startswith("interrupted") and self._folder is not None:
            self._line(f"nothing is lost; go on with:  cnnlab resume {shlex.quote(str(self._folder))}")

    def _line(self, text: str) -> None:
        clear = " " * max(self._width - len(text), 0) if self._live else ""
        prefix = "\r" if self._live else ""
        self._print(f"{prefix}{text}{clear}\n")
        self._width = 0

    def _replace(self, text: str) -> None:
        """Draw a line that the next one overwrites; nothing where there is no terminal."""
        if self._live:
            clear = " " * max(self._width - len(text), 0)
            self._print(f"\r{text}{clear}")
            self._width = len(text)

    def _print(self, text: str) -> None:
        if self._gone:
            return
        try:
            print(text, end="", file=self._stream, flush=True)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._gone = True  # the terminal, and the run shall save itself before it stops


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"
