"""The rows of a bucket that are kept out of training, and the error that is measured on them.

What is drawn for a measurement depends on the seed and the bucket alone: not on the batch, its parts or the processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from ..listening import heard, one_more
from .fields import ENDLESS, Conditioning, VelocityField
from .methods import Method, state_losses
from .rollout import Start
from .sampling_order import seeded_generator

LEAST, MOST = 4, 8
"""Rows that are kept out of a bucket, if any are."""
ENOUGH = 20
"""Rows of a bucket from which some are kept out; of a smaller one all are trained."""


def held_rows(seed: int, count: int, share: float) -> tuple[int, ...]:
    """The rows of a bucket of `count` that are not trained on, at random over it; none of a stream.

    The same for every route that has the bucket.
    """
    if not share or not ENOUGH <= count < ENDLESS:
        return ()
    number = max(LEAST, min(MOST, round(share * count)))
    order = torch.randperm(count, generator=seeded_generator(seed, "held out", count))
    return tuple(sorted(order[:number].tolist()))


def measured_rows(held: Sequence[int], count: int, sizes: Sequence[int] | None = None) -> list[int]:
    """The rows that a validation measures on: those held out; without any the first ones, of one size."""
    if held:
        return list(held)
    return [row for row in range(min(count, MOST)) if sizes is None or sizes[row] == sizes[0]][:LEAST]


def split(counts: Sequence[int], rank: int, size: int) -> list[range]:
    """By route, the places of the measured rows that one of `size` processes measures. counts: measured rows by route.

    The rows of all routes one after another are cut into parts of the same length.
    """
    total, ends = sum(counts), accumulate(counts)
    first, last = total * rank // size, total * (rank + 1) // size
    return [_within(range(first, last), end - count, count) for count, end in zip(counts, ends, strict=True)]


def _within(places: range, offset: int, count: int) -> range:
    """Those of the places that lie in a stretch of `count` behind `offset`, counted from its beginning."""
    first = min(max(places.start - offset, 0), count)
    return range(first, min(max(places.stop - offset, first), count))


class Measured(NamedTuple):
    """A route's measurement. field, teacher: are asked in batches of `batch` rows. begin: the start of the paths of
    some rows of one size, drawn from a generator. rows: all that are measured. sizes: of each row of the bucket. own:
    the places of the rows that this process measures, of one size after another."""

    method: Method
    field: VelocityField
    teacher: VelocityField
    anchor: VelocityField | None
    sigmas: Tensor
    begin: Callable[[list[int], torch.Generator], Start]
    batch: int
    rows: Sequence[int]
    sizes: Sequence[int] | None
    own: range

    def parts(self) -> list[tuple[list[int], range]]:
        """The rows of each size together, and which of them go through the network at once."""
        groups: dict[int, list[int]] = {}
        for row in self.rows:
            groups.setdefault(self.sizes[row] if self.sizes else 0, []).append(row)
        ends = accumulate(map(len, groups.values()))
        return [
            (group, range(first, min(first + self.batch, own.stop)))
            for group, end in zip(groups.values(), ends, strict=True)
            for own in [_within(self.own, end - len(group), len(group))]
            for first in range(own.start, own.stop, self.batch)
        ]

    @torch.no_grad()
    def errors(self, seed: int, number: int) -> Tensor:
        """(rows,) float32 on the CPU, the relative velocity error of each row, the mean over its states; 0 for rows
        that other processes measure. number: of the route."""
        method, found = replace(self.method, group=1), [torch.zeros(self.own.start)]
        for rows, part in self.parts():
            generator = seeded_generator(seed, "validation", number, rows[0])  # anew: each part draws as all of them
            start = self.begin(rows, generator)
            terms = state_losses(
                method, _heard(self.field), _heard(self.teacher), start, self.sigmas, generator, self.anchor, part
            )
            found.append(torch.stack([term.error.float().cpu() for term in terms]).mean(0))
            one_more()
        return torch.cat([*found, torch.zeros(len(self.rows) - self.own.stop)])


def _heard(field: VelocityField) -> VelocityField:
    """The field, which the user can end before each of its answers."""

    def velocity(x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        heard()
        return field(x, sigma, cond)

    return velocity
