"""What the page sees of a training: one growing picture of it, told at most five times a second."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

SECONDS = 0.2
"""Between two events to the page."""


class RunRegistry:
    """The last thing that each node told, and which of the running ones were asked to stop. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, dict[str, Any]] = {}
        self._stops: dict[str, threading.Event] = {}

    @contextmanager
    def running(self, node: str) -> Iterator[threading.Event]:
        """While it lasts, the node can be asked to stop, which sets the event."""
        stop = threading.Event()
        with self._lock:
            self._stops[node] = stop
        try:
            yield stop
        finally:
            with self._lock:
                self._stops.pop(node, None)

    def stop(self, node: str) -> bool:
        """Asks a node to stop and save; False if it is not running."""
        with self._lock:
            event = self._stops.get(node)
        if event:
            event.set()
        return event is not None

    def keep(self, data: dict[str, Any]) -> None:
        with self._lock:
            self._told[data["node"]] = data

    def of_node(self, node: str) -> dict[str, Any] | None:
        with self._lock:
            return self._told.get(node)

    def of_run(self, run: str) -> dict[str, Any] | None:
        """The newest of that run's nodes."""
        with self._lock:
            found = [data for data in self._told.values() if data["run"] == run]
        return max(found, key=lambda data: data["time"], default=None)


class LiveStatus:
    """The picture of one training; `send` gets plain JSON values only."""

    def __init__(
        self, node: str, display_node: str, run: str, steps: int, send: Callable[[dict[str, Any]], None]
    ) -> None:
        self._send, self._sent, self._last = send, 0.0, time.monotonic()
        self._seconds: deque[float] = deque(maxlen=20)
        self.data: dict[str, Any] = {
            "node": node,
            "display_node": display_node,
            "run": run,
            "state": "opening",
            "message": "",
            "update": 0,
            "steps": steps,
            "losses": {},
            "validation": None,
            "rate": None,
            "eta": None,
            "memory_mb": 0.0,
            "pictures": [],
            "asked": [],
            "time": time.time(),
        }

    def begin(self, update: int) -> None:
        """The next update is timed from now."""
        self._last = time.monotonic()
        self.tell(state="training", message="", update=update)

    def step(self, update: int, losses: Mapping[str, float], memory_mb: float) -> None:
        now = time.monotonic()
        self._seconds.append(now - self._last)
        self._last = now
        rate = len(self._seconds) / max(sum(self._seconds), 1e-9)
        self._change(
            update=update,
            losses={**self.data["losses"], **losses},
            rate=rate,
            eta=(self.data["steps"] - update) / rate,
            memory_mb=memory_mb,
        )
        if now - self._sent >= SECONDS:
            self._push()

    def pause(self) -> None:
        """What took place since the last update is not counted as part of the next."""
        self._last = time.monotonic()

    def tell(self, **changes: Any) -> None:
        """Changes that the page is to see at once."""
        self._change(**changes)
        self._push()

    def _change(self, **changes: Any) -> None:
        self.data = {**self.data, **plain(changes), "time": time.time()}

    def _push(self) -> None:
        self._sent = time.monotonic()
        self._send(self.data)


def plain(value: Any) -> Any:
    """A copy that JSON holds: what is not finite is None."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
