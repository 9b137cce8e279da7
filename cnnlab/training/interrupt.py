"""Ctrl-C, SIGTERM and a terminal that goes away as a wish to stop at the next safe place."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class StopRequest:
    """A context in which the first Ctrl-C (or SIGTERM, SIGHUP) only sets `requested`; the second one interrupts.

    SIGHUP is left alone where it is ignored: `nohup` means that the run goes on.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in _stopping():
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True


def request_stop() -> None:
    """Ask what trains in the main thread to stop, as the first Ctrl-C does; asking again changes nothing."""
    request = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    if isinstance(request, StopRequest):
        request.requested = True


def _stopping() -> list[signal.Signals]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    return numbers
