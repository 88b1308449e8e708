"""Wall-clock time of an update by phase (rollout, teacher, student, backward, optimizer)."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .fields import Conditioning, VelocityField


class Stopwatch:
    """Accumulates wall seconds by phase; on CUDA it synchronises, so that a phase is charged for the work it queued."""

    def __init__(self, device: torch.device | str) -> None:
        self._cuda = torch.device(device).type == "cuda"
        self._spent: dict[str, float] = defaultdict(float)
        self._begin = self._now()

    def _now(self) -> float:
        if self._cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begin = self._now()
        try:
            yield
        finally:
            self._spent[name] += self._now() - begin

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
        """Seconds by phase, and "total" since construction."""
        return {**self._spent, "total": self._now() - self._begin}
