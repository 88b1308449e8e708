"""The rows of the report tables: each row's seeds together, as means with intervals, and compared with other rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ...shapes.language import EDIT, GLOBAL, LOCAL, T2I
from .benches import is_source
from .results import ScoredPoint, TrialResult
from .statistics import interval
from .trials import BASE, TASKS

MEANS = {"t2i": T2I, "edit": EDIT, "local": LOCAL, "global": GLOBAL}
"""Columns that are means over categories."""
REFERENCE = "danceopd"

Scores = dict[str, np.ndarray]  # column -> (seeds, items)


@dataclass(frozen=True)
class ReportRow:
    """A row of a table, over its seeds. comparison: schedule.UPDATES or FORWARDS. diverged: the seeds that did.

    means: column -> (mean, low, high), or (mean,) for ratios. "both" is the mean of the task's capabilities. "delta" is
    its difference from the row `danceopd`, paired by seed and item. "share" is the smallest ratio, over capabilities,
    to the best source of the capability (a teacher or the base). "closed", for a task with a style, is the fraction of
    the difference between base and teacher. Comparisons with other rows use the seeds that all these rows have.
    """

    task: str
    comparison: str
    row: str
    regime: str
    beta: float
    seeds: list[int]
    diverged: list[int]
    updates: int
    forwards: float
    seconds: float
    inference_forwards: float
    means: dict[str, tuple[float, ...]]


# Attribute -> key in the report file, in the file's order. The keys are those of the reports written so far.
_KEYS = {
    "task": "setting",
    "comparison": "mark",
    "row": "row",
    "regime": "data",
    "beta": "beta",
    "seeds": "seeds",
    "diverged": "diverged",
    "updates": "updates",
    "forwards": "forwards",
    "seconds": "seconds",
    "inference_forwards": "inference",
    "means": "marks",
}


def as_record(row: ReportRow) -> dict[str, Any]:
    """The row as a report file holds it."""
    return {key: getattr(row, name) for name, key in _KEYS.items()}


def capabilities(task: str) -> tuple[str, ...]:
    """The names of MEANS that the task's teachers cover."""
    routes = TASKS[task].routes.values()
    return tuple(name for name, kind in MEANS.items() if kind in routes)


def columns(task: str) -> tuple[str, ...]:
    """The columns of a task's table, means first."""
    scored, covered = TASKS[task].scored, capabilities(task)
    others = [name for name in ("t2i", "edit") if set(MEANS[name]) & set(scored) and name not in covered]
    style = ("lit", "closed") if TASKS[task].style else ()
    return (*(("both", "delta", "share") if len(covered) > 1 else ()), *covered, *others, *style, *scored)


class _Group(NamedTuple):
    """A report row with the scores that it is made of."""

    row: ReportRow
    scores: Scores


def report_rows(results: Sequence[TrialResult]) -> list[ReportRow]:
    """One row for each task, comparison, bench row, data regime and inference guidance, over its seeds."""
    points: dict[tuple[str, str, str, str, float], list[tuple[TrialResult, ScoredPoint]]] = {}
    for result in results:
        for point in result.points:
            for comparison in point.comparisons:
                key = (result.task, comparison, result.row, result.regime, point.beta)
                points.setdefault(key, []).append((result, point))
    groups = [_group(key, [r for r, _ in pairs], [p for _, p in pairs]) for key, pairs in points.items()]
    rows = []
    for group in groups:
        table = (group.row.task, group.row.comparison)
        others = {g.row.row: g for g in groups if (g.row.task, g.row.comparison) == table and g.row.beta == 1.0}
        compared = _share(group, others) | _closed(group, others) | _delta(group, others)
        rows.append(replace(group.row, means=group.row.means | compared))
    return rows


def _group(
    key: tuple[str, str, str, str, float], results: Sequence[TrialResult], points: Sequence[ScoredPoint]
) -> _Group:
    task, comparison, row, regime, beta = key
    scores = _scores(points)
    means = {name: interval(of_name) for name, of_name in scores.items()}
    if len(names := capabilities(task)) > 1:
        means["both"] = interval(*(scores[name] for name in names))
    report_row = ReportRow(
        task,
        comparison,
        row,
        regime,
        beta,
        seeds=[result.seed for result in results],
        diverged=[result.seed for result in results if result.diverged],
        updates=points[0].update,
        forwards=float(np.mean([point.forwards for point in points])),
        seconds=float(np.mean([point.seconds for point in points])),
        inference_forwards=float(np.mean([point.inference_forwards for point in points])),
        means={name: tuple(round(x, 4) for x in of_name) for name, of_name in means.items()},
    )
    return _Group(report_row, scores)


def _scores(points: Sequence[ScoredPoint]) -> Scores:
    scores = {name: np.array([point.scores[name] for point in points]) for name in points[0].scores}
    for name, kind in MEANS.items():
        if set(kind) <= set(scores):
            scores[name] = np.concatenate([scores[category] for category in kind], 1)
    return scores


def _on_common_seeds(*groups: _Group) -> tuple[list[Scores], int]:
    """The groups' scores on the seeds that all of them have, and the number of these seeds."""
    seeds = [seed for seed in groups[0].row.seeds if all(seed in group.row.seeds for group in groups)]
    places = [[group.row.seeds.index(seed) for seed in seeds] for group in groups]
    chosen = [{name: x[at] for name, x in group.scores.items()} for group, at in zip(groups, places, strict=True)]
    return chosen, len(seeds)


def _delta(group: _Group, others: dict[str, _Group]) -> dict[str, tuple[float, ...]]:
    names = capabilities(group.row.task)
    if len(names) < 2 or REFERENCE not in others or (group.row.row, group.row.beta) == (REFERENCE, 1.0):
        return {}
    (own, reference), seeds = _on_common_seeds(group, others[REFERENCE])
    if not seeds:
        return {}
    difference = interval(*(own[name] - reference[name] for name in names), least=-1.0)
    return {"delta": tuple(round(x, 4) for x in difference)}


def _share(group: _Group, others: dict[str, _Group]) -> dict[str, tuple[float, ...]]:
    """A ratio of noisy means: reported without an interval."""
    names = capabilities(group.row.task)
    (own, *sources), seeds = _on_common_seeds(group, *(other for name, other in others.items() if is_source(name)))
    if len(names) < 2 or not sources or not seeds:
        return {}
    best = {name: max(float(source[name].mean()) for source in sources) for name in names}
    if not min(best.values()) > 0:
        return {}
    return {"share": (round(min(float(own[name].mean()) / best[name] for name in names), 4),)}


def _closed(group: _Group, others: dict[str, _Group]) -> dict[str, tuple[float, ...]]:
    """A ratio of noisy differences: reported without an interval."""
    task = TASKS[group.row.task]
    ends = (BASE, next(iter(task.routes)))
    if not task.style or any(end not in others for end in ends):
        return {}
    scores, seeds = _on_common_seeds(group, *(others[end] for end in ends))
    own, base, teacher = (float(of_group["lit"].mean()) if seeds else 0.0 for of_group in scores)
    return {} if base == teacher else {"closed": ((own - base) / (teacher - base),)}
