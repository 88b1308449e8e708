"""The random order of a bucket's samples, and the seeded generators that it and all else of a run is drawn from."""

from __future__ import annotations

import zlib

import torch


def seeded_generator(seed: int, *key: str | int) -> torch.Generator:
    """A generator determined by the run's seed, its purpose and the counters in `key`.

    It is on the CPU, so that every device gets the same numbers.
    """
    return torch.Generator().manual_seed(zlib.crc32(repr((seed, *key)).encode()))


class SamplingOrder:
    """Which rows of each route's bucket come next, in one process or many.

    A bucket is shuffled anew for each pass through it, and consecutive batches go to the processes in turn.
    counts: samples of each route's bucket. taken: samples that each route has given so far, over all processes; it is
    the state from which a resumed run continues.
    """

    def __init__(self, counts: list[int], batch: int, seed: int, rank: int = 0, processes: int = 1) -> None:
        self._counts, self._batch, self._seed = counts, batch, seed
        self._rank, self._processes = rank, processes
        self.taken = [0] * len(counts)

    def rows(self, route: int, micro: int) -> list[int]:
        """This process's rows of the route's bucket in a micro-step, by its number within the update."""
        first = self.taken[route] + (micro * self._processes + self._rank) * self._batch
        return [self._row(route, first + offset) for offset in range(self._batch)]

    def advance(self, route: int, micro_steps: int) -> None:
        """Counts the samples of a finished update; those of an interrupted one are given again."""
        self.taken[route] += micro_steps * self._processes * self._batch

    def _row(self, route: int, position: int) -> int:
        count = self._counts[route]
        epoch, place = divmod(position, count)
        return int(torch.randperm(count, generator=seeded_generator(self._seed, "order", route, epoch))[place])
