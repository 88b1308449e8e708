"""Signals that end a program: raised where that harms nothing, held back where it would, and raised once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C; what schedulers of clusters and `kill` send; the end of a terminal."""
INSISTING = 2.0
"""Seconds after which a second Ctrl-C is the user's and no copy of the first, as launchers send."""


class Terminated(KeyboardInterrupt):
    """The program was told to end. number: of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.number = number


@contextmanager
def raised() -> Iterator[None]:
    """Raises Terminated for the first ending signal in the block, so that what it interrupts can be saved.

    Later ones are ignored while that happens, except for a second Ctrl-C by somebody who does not want to wait. Signals
    that the program ignores, as under nohup, stay ignored. Only the main thread is interrupted.
    """
    first: list[float] = []

    def end(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not first or (number == signal.SIGINT and now - first[0] > INSISTING):
            first.append(now)
            raise Terminated(number)

    with _handled(end):
        yield


@contextmanager
def held() -> Iterator[None]:
    """Lets the block end before an ending signal takes effect."""
    pending: list[int] = []
    with _handled(lambda number, frame: pending.append(number)):
        yield
    for number in dict.fromkeys(pending):
        signal.raise_signal(number)


@contextmanager
def _handled(handler: Any) -> Iterator[None]:
    """Handles the ending signals that are not ignored; in another thread than the main one, does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    former = {}
    try:
        for number in ENDING:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):  # None: not set from Python
                former[number] = signal.signal(number, handler)
        yield
    finally:
        for number, before in former.items():
            signal.signal(number, before)
