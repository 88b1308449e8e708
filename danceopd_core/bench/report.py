"""Results as tables: the twelve columns of the paper, their means by capability, and what each row cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..shapes.language import EDIT, GLOBAL, LOCAL, T2I
from .benches import is_source
from .cells import BASE, REGIMES, SETTINGS, Plan
from .loop import Result
from .schedule import FORWARDS, UPDATES
from .statistics import interval

Line = dict[str, Any]
"""A row of a table: setting, mark, row, data, beta, seeds, updates, forwards, seconds, inference, diverged (seeds), and
marks: by column, (mean, low, high), or the mean alone. "both" is the mean of the setting's capabilities; "share", the
least share of any of them that is left of the best source of it, a teacher or the base; "closed", of a setting with a
style, the share of the way from base to teacher."""
MEANS = {"t2i": T2I, "edit": EDIT, "local": LOCAL, "global": GLOBAL}


def capabilities(setting: str) -> tuple[str, ...]:
    """What the setting's teachers are asked for, as names of MEANS."""
    routes = SETTINGS[setting].routes.values()
    return tuple(name for name, kind in MEANS.items() if kind in routes)


def columns(setting: str) -> tuple[str, ...]:
    """The names of a setting's scores, means first."""
    chosen, asked = SETTINGS[setting], capabilities(setting)
    whole = [name for name in ("t2i", "edit") if set(MEANS[name]) & set(chosen.scored) and name not in asked]
    style = ("lit", "closed") if chosen.style else ()
    return (*(("both", "share") if len(asked) > 1 else ()), *asked, *whole, *style, *chosen.scored)


def lines(results: Sequence[Result]) -> list[Line]:
    """One for every row, mark and inference guidance: its seeds together."""
    groups: dict[tuple[Any, ...], list[tuple[Result, dict[str, Any]]]] = {}
    for result in results:
        for point in result["points"]:
            for mark in point["marks"]:
                key = (result["setting"], mark, result["row"], result["data"], point["beta"])
                groups.setdefault(key, []).append((result, point))
    found = [_line(key, [point for _, point in group], [r for r, _ in group]) for key, group in groups.items()]
    for line in found:
        line["marks"] |= _both(line, found) | _closed(line, found)
    return found


def _line(key: tuple[Any, ...], points: list[dict[str, Any]], results: list[Result]) -> Line:
    setting, mark, row, data, beta = key
    scores = {name: np.array([point["scores"][name] for point in points]) for name in points[0]["scores"]}
    for name, kind in MEANS.items():
        if set(kind) <= set(scores):
            scores[name] = np.concatenate([scores[category] for category in kind], 1)
    mean = {name: float(np.mean([point[name] for point in points])) for name in ("forwards", "seconds", "inference")}
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
        "marks": {name: tuple(round(x, 4) for x in interval(found)) for name, found in scores.items()},
    }


def _both(line: Line, found: Sequence[Line]) -> dict[str, Any]:
    """Ratios of noisy means: shown without an interval."""
    names = capabilities(line["setting"])
    if len(names) < 2:
        return {}
    place = (line["setting"], line["mark"], 1.0)
    sources = [x for x in found if (x["setting"], x["mark"], x["beta"]) == place and is_source(x["row"])]
    best = [max((x["marks"][name][0] for x in sources), default=0.0) for name in names]
    own = [line["marks"][name][0] for name in names]
    marks: dict[str, Any] = {"both": (round(sum(own) / len(own), 4),)}
    if min(best) > 0:
        marks["share"] = (round(min(a / b for a, b in zip(own, best, strict=True)), 4),)
    return marks


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


def as_markdown(name: str, plan: Plan, results: Sequence[Result]) -> str:
    """The whole report: how it was made, then a table for each setting and each way to compare."""
    return "\n".join(_text(name, plan, lines(results))) + "\n"


def _text(name: str, plan: Plan, found: Sequence[Line]) -> Iterator[str]:
    yield f"# Bench: {name}\n"
    yield (
        f"Held-out items a category: {plan.each}. Mean ± half of the 95 % interval over seeds and items, of scores in "
        f"[0, 1]. An update is {plan.batch} paths for every method. A forward is one sample through the transformer; a "
        "backward counts as two. Seconds are of training, without scoring; targets that teachers draw are in both. "
        "β is the guidance at inference, `inference` the forwards of one picture. `both` is the mean of the setting's "
        "capabilities, `share` the least that any of them is of its best source, a teacher or the guided base.\n"
    )
    used = dict.fromkeys(line["data"] for line in found if line["data"])
    if used:
        yield "Data regimes:\n"
    yield from (f"- `{regime}`: {REGIMES[regime].words}" for regime in used)
    titles = {UPDATES: f"after {plan.steps} updates", FORWARDS: "after as many forwards as DanceOPD's run"}
    for setting in dict.fromkeys(line["setting"] for line in found):
        for mark, title in titles.items():
            rows = [line for line in found if (line["setting"], line["mark"]) == (setting, mark)]
            if rows:
                yield f"\n## {setting}, {title}\n" if used else f"\n## {setting}\n"
                yield f"Students start as `{SETTINGS[setting].start}` where the row says nothing else.\n"
                yield from _table(rows, columns(setting))


def _table(rows: Sequence[Line], names: Sequence[str]) -> Iterator[str]:
    heads = ("row", "data", "β", *names, "updates", "forwards", "seconds", "inference")
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for line in rows:
        cells = [line["row"] + (" (diverged)" if line["diverged"] else ""), line["data"], f"{line['beta']:g}"]
        cells += [_cell(line["marks"].get(name)) for name in names]
        cells += [f"{line['updates']}", f"{line['forwards']:.0f}", f"{line['seconds']:.0f}", f"{line['inference']:g}"]
        yield "| " + " | ".join(cells) + " |"


def _cell(mark: Sequence[float] | None) -> str:
    if not mark:
        return ""
    return f"{mark[0]:.3f} ±{max(mark[2] - mark[0], mark[0] - mark[1]):.3f}" if len(mark) == 3 else f"{mark[0]:.3f}"
