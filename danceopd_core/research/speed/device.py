"""What a GPU says of trainers that share it: the memory of each by itself, and how much of an update it is busy."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, TypeVar

import torch

T = TypeVar("T")


class Footprint:
    """The memory of trainers that live side by side on one GPU, each as if it were alone; nothing on a CPU.

    peaks: bytes by trainer, its weights and optimiser and the most that an update holds beside them.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._own: dict[str, int] = {}
        self.peaks: dict[str, int] = {}

    def built(self, name: str, build: Callable[[], T]) -> T:
        """What `build` makes; what it leaves on the device is this trainer's."""
        before = self._allocated()
        made = build()
        self._own[name] = self._allocated() - before
        return made

    def timed(self, name: str, timer: Callable[[], float], first: bool) -> float:
        """The timer's value. first: the optimiser makes its state in it, which stays."""
        if self._device.type != "cuda" or name not in self._own:
            return timer()
        before = self._allocated()
        torch.cuda.reset_peak_memory_stats(self._device)
        value = timer()
        most = torch.cuda.max_memory_allocated(self._device) - before
        if first:
            self._own[name] += self._allocated() - before
        else:
            self.peaks[name] = max(self.peaks.get(name, 0), self._own[name] + most)
        return value

    def _allocated(self) -> int:
        if self._device.type != "cuda":
            return 0
        gc.collect()
        return torch.cuda.memory_allocated(self._device)


def busy_share(call: Callable[[], object]) -> float:
    """Of the time that `call` takes, the part in which kernels run on the GPU, by torch's profiler.

    The rest is the GPU's waiting for the host. 0 where the profiler sees no kernel.
    """
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        begin = time.perf_counter()
        call()
        torch.cuda.synchronize()
        spent = time.perf_counter() - begin
    kernels: list[Any] = list(profiled.key_averages())
    busy = sum(kernel.self_device_time_total for kernel in kernels) / 1e6
    return busy / spent
