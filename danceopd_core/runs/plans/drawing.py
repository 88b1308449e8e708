"""Which rows of its buckets a run will draw, known from the recipe alone: nothing else has to be checked or encoded."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor

from ...algorithm.balance import most_updates
from ...algorithm.fields import ENDLESS
from ...algorithm.held_out import held_rows, measured_rows
from ...algorithm.routers import router
from ...algorithm.sampling_order import pass_length, rows_in_order, updates_by_route
from ...recipe.schema import Recipe


def launched() -> int:
    """The number of processes that a launcher has started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def drawn_rows(
    recipe: Recipe,
    counts: Sequence[int],
    processes: int = 1,
    sizes: Sequence[Sequence[int] | None] | None = None,
) -> list[list[int]]:
    """By route, the rows that the whole run draws, over all processes, in the order drawn; then those of validations.

    counts: rows of each route's bucket. sizes: by route, which size each row has; None: all have one.
    """
    each = recipe.batch * recipe.accumulate * processes
    sizes, weights = sizes or [None] * len(counts), [route.weight for route in recipe.routes]
    held = [held_rows(recipe.seed, count, recipe.held_out) for count in counts]
    lengths = [pass_length(*of, recipe.batch) for of in zip(counts, sizes, held, strict=True)]
    # Updates of a route that draw its whole bucket; a stream is never drawn as a whole.
    enough = None if ENDLESS in counts else max(-(-length // each) for length in lengths)
    if recipe.router == "balanced":  # what it chooses depends on what is learned
        updates = [most_updates(weights, number, recipe.steps) for number in range(len(counts))]
    else:
        updates = updates_by_route(router(recipe.router, weights), len(counts), recipe.seed, recipe.steps, enough)
    rows = []
    for number, (count, times) in enumerate(zip(counts, updates, strict=True)):
        of = sizes[number], recipe.batch, held[number]
        drawn: Tensor = rows_in_order(recipe.seed, number, count, times * each, *of)
        validated = measured_rows(held[number], count, sizes[number])
        rows.append(list(dict.fromkeys([*drawn.tolist(), *validated])))
    return rows
