"""Where an update's seconds go, by phase."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .fields import Conditioning, VelocityField


class Stopwatch:
    """Adds up wall seconds by phase; on CUDA it waits for the device, so that a phase pays for its own work."""

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
        """The field, its calls counted to the phase."""

        def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            with self.phase(name):
                return field(x, sigma, cond)

        return velocity

    def student(self, field: VelocityField) -> VelocityField:
        """The field, its calls without gradients counted to the rollout and the others to the student."""

        def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            with self.phase("student" if torch.is_grad_enabled() else "rollout"):
                return field(x, sigma, cond)

        return velocity

    def seconds(self) -> dict[str, float]:
        return {**self._spent, "total": self._now() - self._begin}
