"""Means over seeds and items with intervals that know that both were drawn."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from scipy import stats

from ..shapes.score import Mark


class Interval(NamedTuple):
    """A mean with its 95 % interval, within [0, 1]."""

    mean: float
    low: float
    high: float


def interval(scores: np.ndarray) -> Interval:
    """Of scores (seeds, items) in [0, 1], every seed on the same items.

    The variance of the mean is that of the seeds' means over their number plus that of the items' means over theirs
    (the two-way layout of Owen, "The pigeonhole bootstrap", 2007, which errs on the wide side), with the degrees of
    freedom of Satterthwaite: few seeds that differ give a wide interval. One seed says nothing of other seeds.
    Scores that are all alike have Wilson's interval for as many items.
    """
    seeds, items = scores.shape
    mean = float(scores.mean())
    parts = [
        (float(scores.mean(axis).var(ddof=1)) / count, count - 1)
        for axis, count in ((1, seeds), (0, items))
        if count > 1
    ]
    variance = sum(part for part, _ in parts)
    if variance <= 1e-12:
        mark = Mark.of([mean] * items)
        return Interval(mean, min(mean, mark.low), max(mean, mark.high))
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    return Interval(mean, max(0.0, mean - half), min(1.0, mean + half))
