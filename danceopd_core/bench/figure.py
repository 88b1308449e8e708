"""The figure of a bench: the score of every row over updates and over forwards, on the same items throughout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .cells import SETTINGS
from .loop import Result


def curves(results: Sequence[Result]) -> dict[str, dict[str, list[tuple[float, float, float]]]]:
    """Setting -> row -> (updates, forwards, mean of the scored categories) at each scored update, over its seeds.

    Whole exams count with the items that the brief ones ask, which come first.
    """
    brief = min(len(scores) for r in results for point in r["points"] for scores in point["scores"].values())
    gathered: dict[str, dict[str, dict[int, list[tuple[float, float]]]]] = {}
    for result in results:
        for point in result["points"]:
            if point["beta"] == 1:
                categories = SETTINGS[result["setting"]].scored
                score = float(np.mean([np.mean(point["scores"][name][:brief]) for name in categories]))
                row = gathered.setdefault(result["setting"], {}).setdefault(result["row"], {})
                row.setdefault(point["update"], []).append((point["forwards"], score))
    return {
        setting: {
            row: [(update, *np.mean(points, 0).tolist()) for update, points in sorted(found.items())]
            for row, found in rows.items()
        }
        for setting, rows in gathered.items()
    }


def draw_curves(results: Sequence[Result], path: Path, title: str) -> None:
    """One line of panels a setting; rows without a training are level lines."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = curves(results)
    figure, grid = pyplot.subplots(
        len(found), 2, figsize=(12, 4.4 * len(found)), dpi=120, layout="constrained", squeeze=False, sharey="row"
    )
    for panels, (setting, rows) in zip(grid, found.items(), strict=True):
        for number, (row, points) in enumerate(rows.items()):
            look = {"color": f"C{number % 10}", "label": row, "linestyle": ("-", "--", ":")[number // 10 % 3]}
            wide = {"linewidth": 3} if row == "danceopd" else {"linewidth": 1.4}
            for axes, place in zip(panels, (0, 1), strict=True):
                if len(points) == 1:
                    axes.axhline(points[0][2], alpha=0.6, **look)
                else:
                    axes.plot([p[place] for p in points], [p[2] for p in points], marker=".", **look, **wide)
        for axes, name in zip(panels, ("updates", "forwards of the transformer (a backward counts 2)"), strict=True):
            axes.set(xlabel=name, title=setting)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        panels[0].set_ylabel("mean score, of a brief exam")
        panels[1].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.suptitle(title)
    figure.savefig(path)
    pyplot.close(figure)
