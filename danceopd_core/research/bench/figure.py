"""The figure of a bench: what every row has of its setting's capabilities, and their mean over updates and forwards;
a style that is scored counts as one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...shapes.language import T2I
from .cells import SETTINGS
from .lines import MEANS, Line, capabilities
from .loop import Result
from .schedule import FORWARDS

Points = list[tuple[float, float, float]]
"""Updates, forwards, mean of what is shown."""


def shown(setting: str) -> tuple[str, ...]:
    """What the figure tells of the setting's students, as names of a line's marks."""
    return (*capabilities(setting), *(("lit",) if SETTINGS[setting].style else ()))


def curves(results: Sequence[Result]) -> dict[str, dict[str, Points]]:
    """Task -> row -> its score at each scored update, over its seeds.

    Whole exams count with the items that the brief ones ask, which come first.
    """
    brief = min(len(scores) for r in results for point in r["points"] for scores in point["scores"].values())
    gathered: dict[str, dict[str, dict[int, list[tuple[float, float]]]]] = {}
    for result in results:
        for point in result["points"]:
            if point["beta"] == 1:
                score = _mean(result["setting"], point["scores"], brief)
                row = gathered.setdefault(result["setting"], {}).setdefault(result["row"], {})
                row.setdefault(point["update"], []).append((point["forwards"], score))
    return {
        setting: {
            row: [(update, *np.mean(points, 0).tolist()) for update, points in sorted(found.items())]
            for row, found in rows.items()
        }
        for setting, rows in gathered.items()
    }


def _mean(setting: str, scores: dict[str, list[float]], brief: int) -> float:
    """Of each category's first items."""
    # The style's scores are listed category after category.
    lit = dict(zip(T2I, np.array_split(scores.get("lit", []), len(T2I)), strict=True))
    kinds = [[(lit if name == "lit" else scores)[c] for c in MEANS.get(name, T2I)] for name in shown(setting)]
    return float(np.mean([np.mean([found[:brief] for found in kind]) for kind in kinds]))


def draw_curves(results: Sequence[Result], table: Sequence[Line], path: Path, title: str) -> None:
    """One line of panels a setting, without curves where nothing is trained; in them such rows are level lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = curves(results)
    wide = 3 if any(len(points) > 1 for rows in found.values() for points in rows.values()) else 1
    size = (4 + 4 * wide, 4.8 * len(found))
    figure, grid = pyplot.subplots(len(found), wide, figsize=size, dpi=100, layout="constrained", squeeze=False)
    for (plane, *panels), (setting, rows) in zip(grid, found.items(), strict=True):
        looks = {row: _look(row, number) for number, row in enumerate(rows)}
        marks = [line["mark"] for line in table if line["setting"] == setting]
        last = FORWARDS if FORWARDS in marks else marks[0]
        ends = [line for line in table if (line["setting"], line["mark"]) == (setting, last)]
        _plane(plane, ends, shown(setting), looks)
        for place, axes in enumerate(panels):
            for row, points in rows.items():
                if len(points) == 1:
                    axes.axhline(points[0][2], alpha=0.6, **looks[row])
                else:
                    axes.plot([p[place] for p in points], [p[2] for p in points], marker=".", **looks[row])
            name = ("updates", "forwards of the transformer (a backward counts 2)")[place]
            axes.set(xlabel=name, ylabel=f"mean of {' and '.join(shown(setting))}, brief exam")
        plane.set_title(f"{setting}, {'at equal forwards' if last == FORWARDS else 'at the end'}", loc="left")
        for axes in (plane, *panels):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        if panels:
            panels[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title)
    figure.savefig(path)
    pyplot.close(figure)


def _look(row: str, number: int) -> dict[str, Any]:
    style = ("-", "--", ":")[number // 10 % 3]
    return {"color": f"C{number % 10}", "label": row, "linestyle": style, "linewidth": 3 if row == "danceopd" else 1.4}


def _plane(axes: Any, ends: Sequence[Line], names: Sequence[str], looks: dict[str, dict[str, Any]]) -> None:
    """Rows by the first and the last of the names, with their 95 % intervals; hollow where guided at inference."""
    for line in ends:
        x, y = (line["marks"][name] for name in (names[0], names[-1]))
        guided = line["beta"] != 1
        sides = {f"{a}err": [[m[0] - m[1]], [m[2] - m[0]]] for a, m in (("x", x), ("y", y))}
        color = looks[line["row"]]["color"]
        axes.errorbar(x[0], y[0], **sides, color=color, marker="o", elinewidth=0.8, mfc="w" if guided else color)
        label = f"{line['row']} β={line['beta']:g}" if guided else line["row"]
        axes.annotate(label, (x[0], y[0]), (4, 4), textcoords="offset points", fontsize=7, color=color)
    axes.set(xlabel=names[0], ylabel=names[-1])
