"""Results as the lines of tables: every row's seeds together, as means with intervals, and against one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...shapes.language import EDIT, GLOBAL, LOCAL, T2I
from .benches import is_source
from .cells import BASE, SETTINGS
from .loop import Result
from .statistics import interval

Line = dict[str, Any]
"""A row of a table: setting, mark, row, data, beta, seeds, updates, forwards, seconds, inference, diverged (seeds), and
marks: by column, (mean, low, high), or the mean alone. "both" is the mean of the setting's capabilities; "delta", that
less the same of the row `danceopd`, paired by seed and item; "share", the least share of any capability that is left of
the best source of it, a teacher or the base; "closed", of a setting with a style, the share of the way from base to
teacher. What is held against other rows is so on the seeds that all of them have."""
MEANS = {"t2i": T2I, "edit": EDIT, "local": LOCAL, "global": GLOBAL}
REFERENCE = "danceopd"

Scores = dict[str, np.ndarray]  # column -> (seeds, items)
Row = tuple[Line, Scores]


def capabilities(setting: str) -> tuple[str, ...]:
    """What the setting's teachers are asked for, as names of MEANS."""
    routes = SETTINGS[setting].routes.values()
    return tuple(name for name, kind in MEANS.items() if kind in routes)


def columns(setting: str) -> tuple[str, ...]:
    """The names of a setting's scores, means first."""
    chosen, asked = SETTINGS[setting], capabilities(setting)
    whole = [name for name in ("t2i", "edit") if set(MEANS[name]) & set(chosen.scored) and name not in asked]
    style = ("lit", "closed") if chosen.style else ()
    return (*(("both", "delta", "share") if len(asked) > 1 else ()), *asked, *whole, *style, *chosen.scored)


def lines(results: Sequence[Result]) -> list[Line]:
    """One for every row, mark and inference guidance: its seeds together."""
    groups: dict[tuple[Any, ...], list[tuple[Result, dict[str, Any]]]] = {}
    for result in results:
        for point in result["points"]:
            for mark in point["marks"]:
                key = (result["setting"], mark, result["row"], result["data"], point["beta"])
                groups.setdefault(key, []).append((result, point))
    scores = {key: _scores([point for _, point in group]) for key, group in groups.items()}
    found = [_line(key, [p for _, p in group], [r for r, _ in group], scores[key]) for key, group in groups.items()]
    rows = [(line, scores[key]) for key, line in zip(groups, found, strict=True)]
    for row in rows:
        line = row[0]
        place = (line["setting"], line["mark"], 1.0)
        beside = {x[0]["row"]: x for x in rows if (x[0]["setting"], x[0]["mark"], x[0]["beta"]) == place}
        line["marks"] |= _share(row, beside) | _closed(row, beside) | _delta(row, beside)
    return found


def _scores(points: Sequence[dict[str, Any]]) -> Scores:
    scores = {name: np.array([point["scores"][name] for point in points]) for name in points[0]["scores"]}
    for name, kind in MEANS.items():
        if set(kind) <= set(scores):
            scores[name] = np.concatenate([scores[category] for category in kind], 1)
    return scores


def _line(key: tuple[Any, ...], points: Sequence[dict[str, Any]], results: Sequence[Result], scores: Scores) -> Line:
    setting, mark, row, data, beta = key
    mean = {name: float(np.mean([point[name] for point in points])) for name in ("forwards", "seconds", "inference")}
    marks = {name: interval(found) for name, found in scores.items()}
    if len(names := capabilities(setting)) > 1:
        marks["both"] = interval(*(scores[name] for name in names))
    return {
        "setting": setting,
        "mark": mark,
        "row": row,
        "data": data,
        "beta": beta,
        "seeds": [result["seed"] for result in results],
        "diverged": [result["seed"] for result in results if result["diverged"]],
        "updates": points[0]["update"],
        **mean,
        "marks": {name: tuple(round(x, 4) for x in found) for name, found in marks.items()},
    }


def _common(*rows: Row) -> tuple[list[Scores], int]:
    """Scores on the seeds that all rows have, and the number of these."""
    seeds = [seed for seed in rows[0][0]["seeds"] if all(seed in line["seeds"] for line, _ in rows)]
    places = [[line["seeds"].index(seed) for seed in seeds] for line, _ in rows]
    kept = [{name: x[at] for name, x in scores.items()} for (_, scores), at in zip(rows, places, strict=True)]
    return kept, len(seeds)


def _delta(row: Row, beside: dict[str, Row]) -> dict[str, Any]:
    line, names = row[0], capabilities(row[0]["setting"])
    if len(names) < 2 or REFERENCE not in beside or (line["row"], line["beta"]) == (REFERENCE, 1.0):
        return {}
    (mine, theirs), seeds = _common(row, beside[REFERENCE])
    if not seeds:
        return {}
    return {"delta": tuple(round(x, 4) for x in interval(*(mine[n] - theirs[n] for n in names), least=-1.0))}


def _share(row: Row, beside: dict[str, Row]) -> dict[str, Any]:
    """A ratio of noisy means: shown without an interval."""
    names = capabilities(row[0]["setting"])
    (own, *sources), seeds = _common(row, *(found for name, found in beside.items() if is_source(name)))
    if len(names) < 2 or not sources or not seeds:
        return {}
    best = {name: max(float(source[name].mean()) for source in sources) for name in names}
    if not min(best.values()) > 0:
        return {}
    return {"share": (round(min(float(own[name].mean()) / best[name] for name in names), 4),)}


def _closed(row: Row, beside: dict[str, Row]) -> dict[str, Any]:
    """A ratio of noisy differences: shown without an interval."""
    setting = SETTINGS[row[0]["setting"]]
    ends = (BASE, next(iter(setting.routes)))
    if not setting.style or any(end not in beside for end in ends):
        return {}
    found, seeds = _common(row, *(beside[end] for end in ends))
    own, base, teacher = (float(scores["lit"].mean()) if seeds else 0.0 for scores in found)
    return {} if base == teacher else {"closed": ((own - base) / (teacher - base),)}
