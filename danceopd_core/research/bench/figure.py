"""The figure of a bench: each row's score of each capability, and their mean over updates and over forwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...shapes.language import T2I
from .report_rows import MEANS, ReportRow, capabilities
from .results import TrialResult
from .schedule import FORWARDS
from .trials import TASKS


class CurvePoint(NamedTuple):
    """score: the mean of the columns in `axes_columns`."""

    update: float
    forwards: float
    score: float


def axes_columns(task: str) -> tuple[str, ...]:
    """The columns that the figure shows: the task's capabilities, and its style as one more."""
    return (*capabilities(task), *(("lit",) if TASKS[task].style else ()))


def common_items(results: Sequence[TrialResult]) -> int:
    """The items per category of the smallest held-out set: points of the curves have fewer than those of the tables."""
    return min(len(scores) for r in results for point in r.points for scores in point.scores.values())


def curves(results: Sequence[TrialResult]) -> dict[str, dict[str, list[CurvePoint]]]:
    """Task -> row -> its score at each scored update, averaged over seeds.

    Every point uses the first `common_items` of each category.
    """
    items = common_items(results)
    gathered: dict[str, dict[str, dict[int, list[tuple[float, float]]]]] = {}
    for result in results:
        for point in result.points:
            if point.beta == 1:
                score = _mean(result.task, point.scores, items)
                row = gathered.setdefault(result.task, {}).setdefault(result.row, {})
                row.setdefault(point.update, []).append((point.forwards, score))
    return {
        task: {
            row: [CurvePoint(update, *np.mean(seeds, 0).tolist()) for update, seeds in sorted(points.items())]
            for row, points in rows.items()
        }
        for task, rows in gathered.items()
    }


def _mean(task: str, scores: dict[str, list[float]], items: int) -> float:
    """Over the columns, of their categories' first items."""
    # The style's scores are one list, category after category.
    lit = dict(zip(T2I, np.array_split(scores.get("lit", []), len(T2I)), strict=True))
    kinds = [[(lit if name == "lit" else scores)[c] for c in MEANS.get(name, T2I)] for name in axes_columns(task)]
    return float(np.mean([np.mean([category[:items] for category in kind]) for kind in kinds]))


def draw_curves(results: Sequence[TrialResult], rows: Sequence[ReportRow], path: Path, title: str) -> None:
    """One line of panels per task; without the curves if no row is trained. Untrained rows are horizontal lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    by_task = curves(results)
    wide = 3 if any(len(points) > 1 for of_task in by_task.values() for points in of_task.values()) else 1
    size = (4 + 4 * wide, 4.8 * len(by_task))
    figure, grid = pyplot.subplots(len(by_task), wide, figsize=size, dpi=100, layout="constrained", squeeze=False)
    for (plane, *panels), (task, of_task) in zip(grid, by_task.items(), strict=True):
        styles = {row: _line_style(row, number) for number, row in enumerate(of_task)}
        comparisons = [row.comparison for row in rows if row.task == task]
        last = FORWARDS if FORWARDS in comparisons else comparisons[0]
        _draw_plane(plane, [row for row in rows if (row.task, row.comparison) == (task, last)], task, styles)
        for place, axes in enumerate(panels):
            for row, points in of_task.items():
                if len(points) == 1:
                    axes.axhline(points[0].score, alpha=0.6, **styles[row])
                else:
                    axes.plot([p[place] for p in points], [p.score for p in points], marker=".", **styles[row])
            name = ("updates", "forwards of the transformer (a backward counts 2)")[place]
            scored = f"mean of {' and '.join(axes_columns(task))}"
            axes.set(xlabel=name, ylabel=f"{scored}, {common_items(results)} held-out items per category")
        plane.set_title(f"{task}, {'at equal forwards' if last == FORWARDS else 'at the end'}", loc="left")
        for axes in (plane, *panels):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        if panels:
            panels[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title)
    figure.savefig(path)
    pyplot.close(figure)


def _line_style(row: str, number: int) -> dict[str, Any]:
    style = ("-", "--", ":")[number // 10 % 3]
    return {"color": f"C{number % 10}", "label": row, "linestyle": style, "linewidth": 3 if row == "danceopd" else 1.4}


def _draw_plane(axes: Any, rows: Sequence[ReportRow], task: str, styles: dict[str, dict[str, Any]]) -> None:
    """Rows by the first and the last column, with their 95 % intervals; hollow if guided at inference."""
    names = axes_columns(task)
    for row in rows:
        x, y = (row.means[name] for name in (names[0], names[-1]))
        guided = row.beta != 1
        errors = {f"{a}err": [[m[0] - m[1]], [m[2] - m[0]]] for a, m in (("x", x), ("y", y))}
        color = styles[row.row]["color"]
        axes.errorbar(x[0], y[0], **errors, color=color, marker="o", elinewidth=0.8, mfc="w" if guided else color)
        label = f"{row.row} β={row.beta:g}" if guided else row.row
        axes.annotate(label, (x[0], y[0]), (4, 4), textcoords="offset points", fontsize=7, color=color)
    axes.set(xlabel=names[0], ylabel=names[-1])
