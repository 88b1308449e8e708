"""Means over seeds and items with intervals that know that both were drawn."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...shapes.score import MeanScore


class Interval(NamedTuple):
    """A mean with its 95 % interval, within the scores' range."""

    mean: float
    low: float
    high: float


def interval(*groups: np.ndarray, least: float = 0.0) -> Interval:
    """Of the mean of the groups' means; each has scores (seeds, items) in [least, 1], all have the same seeds, and
    every seed of a group the same items.

    The variance of the mean is that of the seeds' means over their number plus, of each group's share in the mean, that
    of the items' means over theirs (the two-way layout of Owen, "The pigeonhole bootstrap", 2007, which errs on the
    wide side), with the degrees of freedom of Satterthwaite: few seeds that differ give a wide interval. One seed says
    nothing of other seeds. Scores that are all alike have Wilson's interval for as many items.
    """
    of_seeds = np.mean([scores.mean(1) for scores in groups], 0)
    mean, share = float(of_seeds.mean()), 1 / len(groups)
    drawn = [(of_seeds, 1.0), *((scores.mean(0), share) for scores in groups)]
    parts = [
        (float(means.var(ddof=1)) / len(means) * weight**2, len(means) - 1) for means, weight in drawn if len(means) > 1
    ]
    variance = sum(part for part, _ in parts)
    if variance <= 1e-12:
        mark = MeanScore.of([(mean - least) / (1 - least)] * sum(scores.shape[1] for scores in groups))
        low, high = (least + (1 - least) * end for end in (mark.low, mark.high))
        return Interval(mean, min(mean, low), max(mean, high))
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    from scipy import stats

    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(variance)
    return Interval(mean, max(least, mean - half), min(1.0, mean + half))
