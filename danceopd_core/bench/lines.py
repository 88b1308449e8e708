"""Results as the lines of tables: every row's seeds together, as means with intervals, and against one another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..shapes.language import EDIT, GLOBAL, LOCAL, T2I
from .benches import is_source
from .cells import BASE, SETTINGS
from .loop import Result
from .statistics import interval

Line = dict[str, Any]
"""A row of a table: setting, mark, row, data, beta, seeds, updates, forwards, seconds, inference, diverged (seeds), and
marks: by column, (mean, low, high), or the mean alone. "both" is the mean of the setting's capabilities; "delta", that
less the same of the row `danceopd`, paired by seed and item; "share", the least share of any capability that is left of
the best source of it, a teacher or the base; "closed", of a setting with a style, the share of the way from base to
teacher."""
MEANS = {"t2i": T2I, "edit": EDIT, "local": LOCAL, "global": GLOBAL}
REFERENCE = "danceopd"

Scores = dict[str, np.ndarray]  # column -> (seeds, items)


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
    known = {(key[0], key[1], key[2], key[4]): (line, scores[key]) for key, line in zip(groups, found, strict=True)}
    for key, line in zip(groups, found, strict=True):
        line["marks"] |= _share(line, found) | _closed(line, found)
        if reference := known.get((*key[:2], REFERENCE, 1.0)):
            line["marks"] |= _delta(line, scores[key], *reference)
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


def _delta(line: Line, scores: Scores, reference: Line, theirs: Scores) -> dict[str, Any]:
    """Of the seeds that both have."""
    names, seeds = capabilities(line["setting"]), [seed for seed in line["seeds"] if seed in reference["seeds"]]
    if len(names) < 2 or not seeds or (line["row"], line["beta"]) == (REFERENCE, 1.0):
        return {}
    mine, other = ([found["seeds"].index(seed) for seed in seeds] for found in (line, reference))
    differences = (scores[name][mine] - theirs[name][other] for name in names)
    return {"delta": tuple(round(x, 4) for x in interval(*differences, least=-1.0))}


def _share(line: Line, found: Sequence[Line]) -> dict[str, Any]:
    """A ratio of noisy means: shown without an interval."""
    names = capabilities(line["setting"])
    place = (line["setting"], line["mark"], 1.0)
    sources = [x for x in found if (x["setting"], x["mark"], x["beta"]) == place and is_source(x["row"])]
    best = [max((x["marks"][name][0] for x in sources), default=0.0) for name in names]
    if len(names) < 2 or not min(best) > 0:
        return {}
    own = [line["marks"][name][0] for name in names]
    return {"share": (round(min(a / b for a, b in zip(own, best, strict=True)), 4),)}


def _closed(line: Line, found: Sequence[Line]) -> dict[str, Any]:
    setting = SETTINGS[line["setting"]]
    if not setting.style:
        return {}

    def lit(row: str) -> float | None:
        there = [x for x in found if (x["setting"], x["mark"], x["row"]) == (line["setting"], line["mark"], row)]
        return there[0]["marks"]["lit"][0] if there else None

    base, teacher = lit(BASE), lit(next(iter(setting.routes)))
    if base is None or teacher is None or base == teacher:
        return {}
    # A ratio of noisy differences: shown without an interval.
    return {"closed": ((line["marks"]["lit"][0] - base) / (teacher - base),)}
