"""Means over seeds and items with 95 % intervals that account for the variance of both."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ...shapes.score import MeanScore


class Interval(NamedTuple):
    """A mean with its 95 % interval, clipped to the range of the scores."""

    mean: float
    low: float
    high: float


def interval(*groups: np.ndarray, least: float = 0.0) -> Interval:
    """The mean of the groups' means. Each group is (seeds, items) of scores in [least, 1]; all have the same seeds,
    and within a group every seed has the same items.

    The variance of the mean is that of the seeds' means over their number plus, for each group's weight in the mean,
    that of the items' means over theirs (the two-way layout of Owen, "The pigeonhole bootstrap", 2007, which errs on
    the wide side), with Satterthwaite's degrees of freedom: few seeds that differ give a wide interval. With one seed
    the variance between seeds is unknown and left out. Scores that are all equal get Wilson's interval for as many
    items.
    """
    seed_means = np.mean([scores.mean(1) for scores in groups], 0)
    mean, weight = float(seed_means.mean()), 1 / len(groups)
    sampled = [(seed_means, 1.0), *((scores.mean(0), weight) for scores in groups)]
    parts = [
        (float(means.var(ddof=1)) / len(means) * factor**2, len(means) - 1)
        for means, factor in sampled
        if len(means) > 1
    ]
    variance = sum(part for part, _ in parts)
    if variance <= 1e-12:
        wilson = MeanScore.of([(mean - least) / (1 - least)] * sum(scores.shape[1] for scores in groups))
        low, high = (least + (1 - least) * end for end in (wilson.low, wilson.high))
        return Interval(mean, min(mean, low), max(mean, high))
    degrees = variance**2 / sum(part**2 / freedom for part, freedom in parts)
    from scipy import stats

    half = float(stats.t.ppf(0.975, degrees)) * math.sqrt(variance)
    return Interval(mean, max(least, mean - half), min(1.0, mean + half))
