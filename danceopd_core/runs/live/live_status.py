"""The live status of trainings, as the page shows it: published on every change, at most five times a second."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ...errors import shown
from ...listening import Step

MIN_INTERVAL = 0.2
"""Least time between two events with updates or steps of a work, in seconds."""


class RunRegistry:
    """The last status of each node, and the stop events of the running ones. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._statuses: dict[str, dict[str, Any]] = {}
        self._stops: dict[str, threading.Event] = {}

    @contextmanager
    def running(self, node: str) -> Iterator[threading.Event]:
        """Registers the node as running for the block; `stop` sets the event."""
        stop = threading.Event()
        with self._lock:
            self._stops[node] = stop
        try:
            yield stop
        finally:
            with self._lock:
                self._stops.pop(node, None)

    def stop(self, node: str) -> bool:
        """Requests that a node stops and saves; False if it is not running."""
        with self._lock:
            event = self._stops.get(node)
        if event:
            event.set()
        return event is not None

    def store(self, data: dict[str, Any]) -> None:
        """Replaces the status of the node that `data` names."""
        with self._lock:
            self._statuses[data["node"]] = data

    def of_node(self, node: str) -> dict[str, Any] | None:
        with self._lock:
            return self._statuses.get(node)

    def of_run(self, run: str) -> dict[str, Any] | None:
        """The newest status of the nodes with that run."""
        with self._lock:
            statuses = [data for data in self._statuses.values() if data["run"] == run]
        return max(statuses, key=lambda data: data["time"], default=None)


class LiveStatus:
    """The status of one training; `send` receives it as plain JSON values."""

    def __init__(
        self, node: str, display_node: str, run: str, steps: int, send: Callable[[dict[str, Any]], None]
    ) -> None:
        self._send, self._sent, self._last = send, 0.0, time.monotonic()
        self._seconds: deque[float] = deque(maxlen=20)
        self._work = WorkClock()
        self.data: dict[str, Any] = {
            "node": node,
            "display_node": display_node,
            "run": run,
            "state": "opening",
            "message": "",
            "work": None,
            "earlier": "",
            "warning": "",
            "start": {},
            "watched": [],
            "held_out": {},
            "best": None,
            "saved": None,
            "finished_before": False,
            "update": 0,
            "steps": steps,
            "losses": {},
            "validation": None,
            "rate": None,
            "eta": None,
            "memory_mb": 0.0,
            "pictures": [],
            "asked": [],
            "health": None,
            "shares": {},
            "time": time.time(),
        }

    def begin(self, update: int, message: str = "") -> None:
        """Training starts at this update; the next one is timed from now."""
        self.restart_clock()
        self.publish(state="training", message=message, update=update)

    def show_work(self, step: Step) -> None:
        """What is being done before or between updates, at most as often as updates are shown."""
        before = (self.data["work"] or {}).get("what", "")
        told = self._work.told(step)
        if before != step.what or (step.what and time.monotonic() - self._sent >= MIN_INTERVAL):
            self.publish(work=told if step.what else None)

    def add_update(self, update: int, losses: Mapping[str, float], memory_mb: float) -> None:
        """An update is done. losses: of its routes; the other routes keep theirs."""
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
            work=None,
        )
        if now - self._sent >= MIN_INTERVAL:
            self._push()

    @contextmanager
    def showing_faults(self, cancelled: type[BaseException]) -> Iterator[None]:
        """Whatever ends the block is shown as it is raised. cancelled: what is raised when the user cancels."""
        try:
            yield
        except cancelled:
            if self.data["state"] in ("opening", "training"):
                self.publish(state="cancelled", message="")
            raise
        except BaseException as error:
            if (self.data["state"], self.data["message"]) != ("failed", shown(str(error))):
                self.publish(state="failed", message=str(error))
            raise

    def restart_clock(self) -> None:
        """Leaves the time since the last update out of the rate of updates."""
        self._last = time.monotonic()

    def publish(self, **changes: Any) -> None:
        """Changes the status and sends it at once. message: text, escaped where it is not printable."""
        if "message" in changes:
            changes = {"work": None, **changes}
            changes["message"] = shown(changes["message"])
        self._change(**changes)
        self._push()

    def _change(self, **changes: Any) -> None:
        self.data = {**self.data, **plain(changes), "time": time.time()}

    def _push(self) -> None:
        self._sent = time.monotonic()
        self._send(self.data)


class WorkClock:
    """Measures how long a work takes, and how long it will."""

    def __init__(self) -> None:
        self._what, self._began, self._from = "", 0.0, 0

    def told(self, step: Step) -> dict[str, Any]:
        """The step with its `seconds` so far and its `eta`, in seconds; None until it can be known."""
        now = time.monotonic()
        if step.what != self._what or step.done < self._from:
            self._what, self._began, self._from = step.what, now, step.done
        seconds, parts = now - self._began, step.done - self._from
        eta = seconds / parts * (step.total - step.done) if parts and step.total else None
        return {"what": step.what, "done": step.done, "total": step.total, "seconds": seconds, "eta": eta}


def plain(value: Any) -> Any:
    """A copy of JSON types only; a float that is not finite becomes None."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value
