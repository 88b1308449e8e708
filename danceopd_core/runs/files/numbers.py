"""Numbers from the files of a run: the folder may have been written by anybody."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

MOST_UPDATES = 10**9


def is_update(value: Any) -> TypeGuard[int]:
    """Whether it is the number of an update; that of the start is 0."""
    return type(value) is int and 0 <= value <= MOST_UPDATES


def is_finite(value: Any) -> TypeGuard[int | float]:
    """Whether it is a number that a float holds; none of too many digits, and no truth value."""
    if type(value) not in (int, float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def finite(value: Any) -> float | None:
    """A finite number from zero on; None for anything else."""
    return float(value) if is_finite(value) and value >= 0 else None


def measured(value: Any, most: float = 1e9) -> float | None:
    """A rate or a size that can have been measured: positive, and not out of all proportion; None for anything else."""
    return float(value) if is_finite(value) and 1e-9 <= value <= most else None
