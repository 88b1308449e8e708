"""The random order of a bucket's samples, and the seeded generators that it and all else of a run is drawn from."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from .fields import ENDLESS
from .routers import Router


def seeded_generator(seed: int, *key: str | int) -> torch.Generator:
    """A generator determined by the run's seed, its purpose and the counters in `key`.

    It is on the CPU, so that every device gets the same numbers.
    """
    return torch.Generator().manual_seed(zlib.crc32(repr((seed, *key)).encode()))


class SamplingOrder:
    """Which rows of each route's bucket come next, in one process or many.

    A bucket is shuffled anew for each pass through it, and consecutive batches go to the processes in turn. A pass is
    shuffled once and kept while it lasts, in 4 bytes a sample, so that a sample costs the same in a bucket of any size.
    counts: samples of each route's bucket. taken: samples that each route has given so far, over all processes; it is
    the state from which a resumed run continues.
    """

    def __init__(self, counts: list[int], batch: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        self._counts, self._batch, self._seed = counts, batch, seed
        self._rank, self._processes = rank, processes
        self._passes: list[dict[int, Tensor]] = [{} for _ in counts]
        self.taken = [0] * len(counts)

    def rows(self, route: int, micro: int) -> list[int]:
        """This process's rows of the route's bucket in a micro-step, by its number within the update."""
        first = self.taken[route] + (micro * self._processes + self._rank) * self._batch
        return [self._row(route, first + offset) for offset in range(self._batch)]

    def advance(self, route: int, micro_steps: int) -> None:
        """Counts the samples of a finished update; those of an interrupted one are given again."""
        self.taken[route] += micro_steps * self._processes * self._batch

    def _row(self, route: int, position: int) -> int:
        count, kept = self._counts[route], self._passes[route]
        if count == ENDLESS:
            return position
        number, place = divmod(position, count)
        if number not in kept:
            for done in [other for other in kept if other != self.taken[route] // count]:
                del kept[done]
            kept[number] = shuffled(self._seed, route, number, count)
        return int(kept[number][place])


def shuffled(seed: int, route: int, number: int, count: int) -> Tensor:
    """(count,) int32: the order of a bucket's rows in its pass of that number."""
    return torch.randperm(count, dtype=torch.int32, generator=seeded_generator(seed, "order", route, number))


def rows_in_order(seed: int, route: int, count: int, samples: int) -> Tensor:
    """(n,) int32: the rows of a bucket that the route's first `samples` samples are, each once, as they are drawn."""
    if count == ENDLESS:
        return torch.arange(samples)
    return shuffled(seed, route, 0, count)[: min(count, samples)]


def updates_by_route(router: Router, routes: int, seed: int, updates: int, enough: int | None = None) -> list[int]:
    """How many of a run's updates train each route; no more are counted once every route has `enough`."""
    counts = [0] * routes
    for update in range(updates):
        for number in router(update, seeded_generator(seed, "route", update)):
            counts[number] += 1
        if enough is not None and min(counts) >= enough:
            break
    return counts
