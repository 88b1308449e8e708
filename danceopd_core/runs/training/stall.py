"""Tells when a process of a run waits long for another one, and for which.

Each process counts in the launcher's store how often it has come to a common average.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from torch.distributed import TCPStore

ANSWER = 10.0
"""Seconds within which the store answers, unless the process that has it stalls."""


class Meetings:
    """The meetings of the processes, as one of them sees them.

    store: has `add(key, number)`, which returns the sum. after: seconds of waiting before `tell` is called, and again.
    """

    def __init__(self, store: Any, rank: int, size: int, after: float, tell: Callable[[str], None]) -> None:
        self._store, self._rank, self._size, self._after, self._tell = store, rank, size, after, tell
        self._prefix = f"danceopd/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}/"

    @contextmanager
    def meeting(self) -> Iterator[None]:
        """Around a call that waits for all processes."""
        count, over = self._store.add(f"{self._prefix}{self._rank}", 1), threading.Event()

        def watch() -> None:
            waited = 0.0
            while not over.wait(self._after):
                waited += self._after
                if told := self._waiting(count):
                    self._tell(f"the run has waited for {told} for {waited:g} s: look whether it still runs")

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()  # a thread within the store's code at the interpreter's end would abort the process

    def _waiting(self, count: int) -> str:
        """Who is missing, in words; "" where another process tells it."""
        try:
            counts = [self._store.add(f"{self._prefix}{rank}", 0) for rank in range(self._size)]
        except RuntimeError:
            return "the process that launched the run, or rank 0, which does not answer"
        missing = [str(rank) for rank, reached in enumerate(counts) if reached < count]
        here = next(rank for rank, reached in enumerate(counts) if reached >= count)
        return f"rank {', '.join(missing)}" if missing and here == self._rank else ""


def launchers_store() -> Any:
    """The store through which the processes found each other; None if it is elsewhere."""
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        return TCPStore(address, port, is_master=False, timeout=timedelta(seconds=ANSWER), wait_for_workers=False)
    except (KeyError, ValueError, RuntimeError):
        return None
