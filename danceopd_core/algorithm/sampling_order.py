"""The random order of a bucket's samples, and the seeded generators that it and all else of a run is drawn from."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

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
    counts: samples of each route's bucket. sizes: by route, which size each of its samples has, of which a batch has
    one; None: all have the same. held: by route, the samples that are left out. taken: samples that
    each route has given so far, over all processes; it is the state from which a resumed run continues.
    """

    def __init__(
        self,
        counts: list[int],
        batch: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
        sizes: Sequence[Sequence[int] | None] | None = None,
        held: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._batch, self._seed, self._totals = batch, seed, counts
        self._sizes, self._held = sizes or [None] * len(counts), held or [()] * len(counts)
        self._counts = [pass_length(*of, batch) for of in zip(counts, self._sizes, self._held, strict=True)]
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
            sizes, held = self._sizes[route], self._held[route]
            kept[number] = one_pass(self._seed, route, number, self._totals[route], sizes, self._batch, held)
        return int(kept[number][place])


def shuffled(seed: int, route: int, number: int, count: int) -> Tensor:
    """(count,) int32: the order of a bucket's rows in its pass of that number."""
    return torch.randperm(count, dtype=torch.int32, generator=seeded_generator(seed, "order", route, number))


def one_pass(
    seed: int,
    route: int,
    number: int,
    count: int,
    sizes: Sequence[int] | None = None,
    batch: int = 1,
    held: Sequence[int] = (),
) -> Tensor:
    """(n,) int32: the rows of a bucket in its pass of that number, each once, but for those `held`.

    sizes: of each row; then consecutive batches are of one size each. The last batch of a size is filled up with rows
    of that size, which the pass has twice.
    """
    order = shuffled(seed, route, number, count)
    order = order[~torch.isin(order, torch.tensor(held, dtype=order.dtype))] if held else order
    if sizes is None:
        return order
    rows: dict[int, list[int]] = {}
    for row in order.tolist():
        rows.setdefault(sizes[row], []).append(row)
    groups = []
    for _, own in sorted(rows.items()):
        filled = own + [own[place % len(own)] for place in range(-len(own) % batch)]
        groups += [filled[first : first + batch] for first in range(0, len(filled), batch)]
    turns = torch.randperm(len(groups), generator=seeded_generator(seed, "sizes", route, number))
    return torch.tensor([row for turn in turns.tolist() for row in groups[turn]], dtype=torch.int32)


def pass_length(count: int, sizes: Sequence[int] | None, held: Sequence[int], batch: int) -> int:
    """The samples of one pass, as of `one_pass`."""
    if sizes is None:
        return count - len(held)
    of_size: dict[int, int] = {}
    left_out = set(held)
    for row, size in enumerate(sizes):
        of_size[size] = of_size.get(size, 0) + (row not in left_out)
    return sum(-(-own // batch) * batch for own in of_size.values())


def rows_in_order(
    seed: int,
    route: int,
    count: int,
    samples: int,
    sizes: Sequence[int] | None = None,
    batch: int = 1,
    held: Sequence[int] = (),
) -> Tensor:
    """(n,) int32: the rows of a bucket that the route's first `samples` samples are, as they are drawn.

    Each once, but for those that fill a batch of one size.
    """
    if count == ENDLESS:
        return torch.arange(samples)
    return one_pass(seed, route, 0, count, sizes, batch, held)[:samples]


def updates_by_route(router: Router, routes: int, seed: int, updates: int, enough: int | None = None) -> list[int]:
    """How many of a run's updates train each route; no more are counted once every route has `enough`."""
    counts = [0] * routes
    for update in range(updates):
        for number in router(update, seeded_generator(seed, "route", update)):
            counts[number] += 1
        if enough is not None and min(counts) >= enough:
            break
    return counts
