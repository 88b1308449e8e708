"""Reads the samples of the next micro-step while the present one is computed, into pinned memory for a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .fields import Conditioning, Samples


class CleanLatents(Protocol):
    """The clean latents of a bucket's targets, (n, ...): a tensor, or what reads them when they are asked for."""

    def __getitem__(self, rows: list[int], /) -> Tensor: ...


class Read(NamedTuple):
    """A micro-step's samples. clean: (n, ...) latents of their targets, for a method that needs them."""

    cond: Conditioning
    clean: Tensor | None

    def moved(self, move: Callable[[Tensor], Tensor]) -> Read:
        return Read(self.cond.moved(move), None if self.clean is None else move(self.clean))


class ReaderAhead:
    """Reads rows of buckets for one device. What was announced by `ahead` is being read when it is asked for.

    Only what is stored is read ahead, in another thread. What has to be encoded first, in the thread that asks for it.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._device = torch.device(device)
        self._pool: ThreadPoolExecutor | None = None
        self._coming: tuple[object, Future[Read | None]] | None = None

    def take(self, samples: Samples, clean: CleanLatents | None, rows: Sequence[int]) -> Read:
        """These rows on the device. clean: latents by rows, or None."""
        key, coming = (id(samples), tuple(rows)), self._coming
        self._coming = None
        found = coming[1].result() if coming is not None and coming[0] == key else None
        if found is None:
            found = Read(samples.select(rows), None if clean is None else clean[list(rows)])
        return found.moved(lambda tensor: tensor.to(self._device, non_blocking=tensor.is_pinned()))

    def ahead(self, samples: Samples, clean: CleanLatents | None, rows: Sequence[int]) -> None:
        """Begins to read rows that will be taken next; where nothing would be gained, it does not."""
        if self._device.type != "cuda" and not hasattr(samples, "stored"):
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "danceopd-read-ahead")
        self._coming = (id(samples), tuple(rows)), self._pool.submit(self._read, samples, clean, list(rows))

    def _read(self, samples: Samples, clean: CleanLatents | None, rows: list[int]) -> Read | None:
        cond = _stored(samples, samples.select, rows)
        latents = None if clean is None else _stored(clean, clean.__getitem__, rows)
        if cond is None or (clean is not None and latents is None):
            return None
        read = Read(cond, latents)
        return read.moved(pinned) if self._device.type == "cuda" else read


def pinned(tensor: Tensor) -> Tensor:
    """Only memory of the host can be pinned: conditionings may have come on the device."""
    return tensor.pin_memory() if tensor.device.type == "cpu" else tensor


def _stored(bucket: object, read: Callable[[list[int]], Any], rows: list[int]) -> Any:
    """What is stored of a bucket, None if not all of it is; a bucket in memory is read as ever."""
    return getattr(bucket, "stored", read)(rows)
