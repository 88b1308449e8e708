"""The student's error on held-out rows, by one process or by several, each for its part of the rows.

What is drawn for a measurement depends on the seed and the bucket alone: not on the batch, its parts or the processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..listening import heard, one_more, work
from .draws import RouteData
from .fields import Conditioning, VelocityField
from .methods import Method, state_losses
from .rollout import Start
from .sampling_order import seeded_generator


class Group(NamedTuple):
    """Measured rows of a route, by its number, of one size: what is drawn for them is drawn for all at once."""

    route: int
    rows: list[int]


def groups_of(routes: Sequence[RouteData], rows: Sequence[Sequence[int]]) -> list[Group]:
    """The groups of all routes. rows: that are measured, by route."""
    found: list[Group] = []
    for number, (route, measured) in enumerate(zip(routes, rows, strict=True)):
        by_size: dict[int, list[int]] = {}
        for row in measured:
            by_size.setdefault(route.sizes[row] if route.sizes else 0, []).append(row)
        found += [Group(number, own) for own in by_size.values()]
    return found


def parts_of(groups: Sequence[Group], own: range, batch: int) -> Iterator[tuple[Group, range]]:
    """Which rows of each group go through the network at once.

    own: the places, in all groups one after another, that are measured here.
    """
    begin = 0
    for group in groups:
        count = len(group.rows)
        last = min(own.stop - begin, count)
        for first in range(max(own.start - begin, 0), last, batch):
            yield group, range(first, min(first + batch, last))
        begin += count


def share(count: int, rank: int, size: int) -> range:
    """Of so many places, those that one of `size` processes measures: parts of the same length, to one place."""
    return range(count * rank // size, count * (rank + 1) // size)


@dataclass(frozen=True, eq=False)
class Measurement:
    """How routes are measured. field: of the student, asked as the teachers in batches of `batch` rows. begin: the
    start of the paths of some rows of one size of a route, by its number, drawn from a generator."""

    method: Method
    field: VelocityField
    anchor: VelocityField | None
    sigmas: Tensor
    begin: Callable[[int, list[int], torch.Generator], Start]
    batch: int
    seed: int

    @torch.no_grad()
    def errors(self, routes: Sequence[RouteData], rows: Sequence[Sequence[int]], rank: int, size: int) -> Tensor:
        """(rows of all routes,) float32 on the CPU: the relative velocity error of each row, the mean over its states.

        The rows of a route lie together; 0 for those that processes of another rank measure.
        """
        groups = groups_of(routes, rows)
        count = sum(len(group.rows) for group in groups)
        own = share(count, rank, size)
        parts = list(parts_of(groups, own, self.batch))
        with work("measuring the validation error", len(parts)):
            found = [self._errors(routes[group.route].teacher, group, part) for group, part in parts]
        return torch.cat([torch.zeros(own.start), *found, torch.zeros(count - own.stop)])

    def _errors(self, teacher: VelocityField, group: Group, part: range) -> Tensor:
        number, rows = group
        generator = seeded_generator(self.seed, "validation", number, rows[0])  # anew: each part draws as all of them
        start, method = self.begin(number, rows, generator), replace(self.method, group=1)
        terms = state_losses(
            method, _heard(self.field), _heard(teacher), start, self.sigmas, generator, self.anchor, part
        )
        found = torch.stack([term.error.float().cpu() for term in terms]).mean(0)
        one_more()
        return found


def _heard(field: VelocityField) -> VelocityField:
    """The field, which the user can end before each of its answers."""

    def velocity(x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        heard()
        return field(x, sigma, cond)

    return velocity
