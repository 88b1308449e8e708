"""What micro-steps draw: rows of a route's bucket, which are read ahead, and the noise that a path starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .fields import Samples, VelocityField
from .flow import normal
from .reading_ahead import CleanLatents, ReaderAhead
from .rollout import Start
from .sampling_order import SamplingOrder
from .settings import Settings


@dataclass(frozen=True, eq=False)
class RouteData:
    """A route, opened: its teacher and its bucket as encoded samples. clean: for a method that needs it. sizes: for
    each sample the number of its latents' shape among the trainer's; None: all have the first."""

    name: str
    teacher: VelocityField
    samples: Samples
    clean: CleanLatents | None = None
    sizes: Sequence[int] | None = None


class Draws:
    """Draws for the routes of a run, on one device.

    shapes: all that latents of one sample may have. rank, processes: of those that train together. held: by route, the
    samples that are not trained on.

    order: which rows come next; its `taken` is the state of a run.
    """

    def __init__(
        self,
        routes: Sequence[RouteData],
        shapes: Sequence[Sequence[int]],
        settings: Settings,
        device: torch.device | str,
        rank: int,
        processes: int,
        held: Sequence[Sequence[int]],
    ) -> None:
        self._routes, self._shapes, self._device = routes, [tuple(shape) for shape in shapes], device
        self._accumulate = settings.accumulate
        self._reader = ReaderAhead(device)
        counts, sizes = [len(route.samples) for route in routes], [route.sizes for route in routes]
        self.order = SamplingOrder(counts, settings.batch, settings.seed, rank, processes, sizes, held)

    def start(self, number: int, rows: list[int], generator: torch.Generator) -> Start:
        """Where the paths of these rows of a route begin."""
        route = self._routes[number]
        shape = self._shapes[route.sizes[rows[0]] if route.sizes else 0]
        noise = normal(torch.empty(len(rows), *shape, device=self._device), generator)
        read = self._reader.take(route.samples, route.clean, rows)
        return Start(read.cond, noise, read.clean)

    def look_ahead(self, chosen: Sequence[int], place: int, micro: int, following: Callable[[], int | None]) -> None:
        """Begins to read the samples of the micro-step after this one of the route at `place` among the chosen.

        following: gives the first route of the next update, or None; it is asked after the last micro-step only.
        """
        if micro + 1 < self._accumulate:
            number, micro = chosen[place], micro + 1
        elif place + 1 < len(chosen):
            number, micro = chosen[place + 1], 0
        elif (first := following()) is not None:
            number = first
            micro = self._accumulate if number in chosen else 0  # this update's samples are not counted yet
        else:
            return
        route = self._routes[number]
        self._reader.ahead(route.samples, route.clean, self.order.rows(number, micro))
