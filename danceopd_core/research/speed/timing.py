"""Seconds of a call: of the processor on a CPU, where other work does not count; of the device on a GPU."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch


def seconds(call: Callable[[], object], device: str) -> float:
    """Of the process's CPU time, or between two events on a GPU."""
    if device == "cpu":
        begin = time.process_time()
        call()
        return time.process_time() - begin
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def repeated(call: Callable[[], object], count: int, device: str) -> float:
    """Seconds of one of `count` calls."""

    def run() -> None:
        for _ in range(count):
            call()

    return seconds(run, device) / count


class Spread(NamedTuple):
    """The mean of repeats, and half of the 95 % interval of that mean."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.half:.3f}"


T95 = (math.nan, 12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""Student's t for 95 %, by degrees of freedom; 1.96 beyond."""


def spread(values: Sequence[float]) -> Spread:
    count = len(values)
    t = T95[count - 1] if count <= len(T95) else 1.96
    return Spread(statistics.fmean(values), t * statistics.stdev(values) / math.sqrt(count) if count > 1 else math.nan)
