"""What a training does when its device runs out of memory."""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch

Relief = Callable[[int, str], None]
"""(updates done, what the device reported): frees memory for good, or raises what ends the run."""
REPORTS = ("out of memory", "can't allocate memory", "not enough memory")
"""In the errors of devices that have no class of their own for it."""


class OutOfMemory(RuntimeError):
    """Memory ran out, and there is nothing left that would take less; the weights are those of the last update."""


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether a device reports that it has no memory left."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in REPORTS)


def empty_caches() -> None:
    """Gives the memory of tensors that are gone back to the devices."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
