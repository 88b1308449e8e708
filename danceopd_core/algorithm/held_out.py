"""The rows of a bucket that are kept out of training, to measure the student on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .fields import ENDLESS
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
