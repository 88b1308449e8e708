"""Time of an update by phase (rollout, teacher, student, backward, optimizer)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .fields import Conditioning, VelocityField


class Stopwatch:
    """Accumulates seconds by phase: of the wall clock, or of the work that CUDA was given.

    On CUDA it records events in the stream, and waits for none of them until `seconds`: a clock that waited at the end
    of each phase would hold back the queueing of the next.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._phases: list[tuple[str, Any, Any]] = []
        self._begin = self._mark()

    def _mark(self) -> Any:
        if self._device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self._device))
        return event

    @staticmethod
    def _between(begin: Any, end: Any) -> float:
        return end - begin if isinstance(end, float) else begin.elapsed_time(end) / 1000

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = self._mark()
        try:
            yield
        finally:
            self._phases.append((name, begin, self._mark()))

    def timed(self, name: str, field: VelocityField) -> VelocityField:
        """The field, with its calls timed as this phase."""

        def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            with self.phase(name):
                return field(x, sigma, cond)

        return velocity

    def student(self, field: VelocityField) -> VelocityField:
        """The field, with its calls timed as "rollout" without gradients and as "student" with them."""

        def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            with self.phase("student" if torch.is_grad_enabled() else "rollout"):
                return field(x, sigma, cond)

        return velocity

    def seconds(self) -> dict[str, float]:
        """Seconds by phase, and "total" since construction; waits for the work of this device that is timed."""
        end = self._mark()
        if self._device.type == "cuda":
            end.synchronize()
        spent: dict[str, float] = {}
        for name, begin, after in self._phases:
            spent[name] = spent.get(name, 0.0) + self._between(begin, after)
        return {**spent, "total": self._between(self._begin, end)}
