"""Which rows of its buckets a run will draw, known from the recipe alone: nothing else has to be checked or encoded."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from ..algorithm.fields import ENDLESS
from ..algorithm.routers import router
from ..algorithm.sampling_order import rows_in_order, updates_by_route
from ..recipe.schema import Recipe

VALIDATED = 8
"""The first rows of every bucket, which validations ask for."""


def launched() -> int:
    """The number of processes that a launcher has started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def drawn_rows(recipe: Recipe, counts: Sequence[int], processes: int = 1) -> list[list[int]]:
    """By route, the rows that the whole run draws, over all processes, in the order drawn; then those of validations.

    counts: rows of each route's bucket.
    """
    each = recipe.batch * recipe.accumulate * processes
    # Updates of a route that draw its whole bucket; a stream is never drawn as a whole.
    enough = None if ENDLESS in counts else max(-(-count // each) for count in counts)
    chosen = router(recipe.router, [route.weight for route in recipe.routes])
    updates = updates_by_route(chosen, len(counts), recipe.seed, recipe.steps, enough)
    rows = []
    for number, (count, times) in enumerate(zip(counts, updates, strict=True)):
        drawn: Tensor = rows_in_order(recipe.seed, number, count, times * each)
        rows.append(list(dict.fromkeys([*drawn.tolist(), *range(min(VALIDATED, count))])))
    return rows
