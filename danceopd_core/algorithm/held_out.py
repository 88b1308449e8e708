"""The rows of a bucket that are kept out of training, and the error that is measured on them.

What is drawn for a measurement depends on the seed and the bucket alone: not on the batch, its parts or the processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
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


class Measured(NamedTuple):
    """A route's measurement. field, teacher: are asked in batches of `batch` rows. begin: the start of the paths of
    some rows of one size, drawn from a generator."""

    method: Method
    field: VelocityField
    teacher: VelocityField
    anchor: VelocityField | None
    sigmas: Tensor
    begin: Callable[[list[int], torch.Generator], Start]
    batch: int

    def parts(self, rows: Sequence[int], sizes: Sequence[int] | None) -> list[tuple[list[int], range]]:
        """The rows of each size together, and which of them go through the network at once."""
        groups: dict[int, list[int]] = {}
        for row in rows:
            groups.setdefault(sizes[row] if sizes else 0, []).append(row)
        return [
            (own, range(first, min(first + self.batch, len(own))))
            for own in groups.values()
            for first in range(0, len(own), self.batch)
        ]

    @torch.no_grad()
    def error(self, rows: Sequence[int], sizes: Sequence[int] | None, seed: int, number: int) -> float:
        """The mean relative velocity error on these rows of the route of that number."""
        method, found = replace(self.method, group=1), []
        for own, part in self.parts(rows, sizes):
            generator = seeded_generator(seed, "validation", number, own[0])  # anew: each part draws as all of them
            start = self.begin(own, generator)
            terms = state_losses(
                method, _heard(self.field), _heard(self.teacher), start, self.sigmas, generator, self.anchor, part
            )
            found += [term.error.float().cpu() for term in terms]
            one_more()
        return float(torch.cat(found).mean())


def _heard(field: VelocityField) -> VelocityField:
    """The field, which the user can end before each of its answers."""

    def velocity(x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        heard()
        return field(x, sigma, cond)

    return velocity
