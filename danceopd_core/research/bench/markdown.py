"""The Markdown report: the paper's twelve columns, their means by capability, and the cost of each row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .report_rows import ReportRow, columns
from .schedule import FORWARDS, UPDATES
from .trials import REGIMES, TASKS, BenchPlan


def as_markdown(name: str, plan: BenchPlan, rows: Sequence[ReportRow]) -> str:
    """The whole report: how it was made, then a table for each task and each comparison."""
    return "\n".join(_text(name, plan, rows)) + "\n"


def _text(name: str, plan: BenchPlan, rows: Sequence[ReportRow]) -> Iterator[str]:
    yield f"# Bench: {name}\n"
    yield (
        f"Held-out items a category: {plan.items}. Mean ± half of the 95 % interval over seeds and items, of scores in "
        f"[0, 1]. An update is {plan.batch} paths for every method. A forward is one sample through the transformer; a "
        "backward counts as two. Seconds are of training, without scoring; targets that teachers draw are in both. "
        "β is the guidance at inference, `inference` the forwards of one picture. `both` is the mean of the setting's "
        "capabilities, `delta` that less the same of `danceopd`, paired by seed and item, `share` the least that any "
        "capability is of its best source, a teacher or the guided base.\n"
    )
    regimes = dict.fromkeys(row.regime for row in rows if row.regime)
    if regimes:
        yield "Data regimes:\n"
    yield from (f"- `{regime}`: {REGIMES[regime].description}" for regime in regimes)
    titles = {UPDATES: f"after {plan.steps} updates", FORWARDS: "after as many forwards as DanceOPD's run"}
    for task in dict.fromkeys(row.task for row in rows):
        for comparison, title in titles.items():
            of_table = [row for row in rows if (row.task, row.comparison) == (task, comparison)]
            if of_table:
                yield f"\n## {task}, {title}\n" if regimes else f"\n## {task}\n"
                yield f"Students start as `{TASKS[task].initial_lora}` where the row says nothing else.\n"
                names = [name for name in columns(task) if any(name in row.means for row in of_table)]
                yield from _table(of_table, names)


def _table(rows: Sequence[ReportRow], names: Sequence[str]) -> Iterator[str]:
    header = ("row", "data", "β", *names, "seeds", "updates", "forwards", "seconds", "inference")
    yield "| " + " | ".join(header) + " |"
    yield "|---" * len(header) + "|"
    for row in rows:
        cells = [row.row + (" (diverged)" if row.diverged else ""), row.regime, f"{row.beta:g}"]
        cells += [_cell(row.means.get(name)) for name in names]
        cells += [f"{len(row.seeds)}", f"{row.updates}", f"{row.forwards:.0f}", f"{row.seconds:.0f}"]
        cells.append(f"{row.inference_forwards:g}")
        yield "| " + " | ".join(cells) + " |"


def _cell(mean: Sequence[float] | None) -> str:
    if not mean:
        return ""
    return f"{mean[0]:.3f} ±{max(mean[2] - mean[0], mean[0] - mean[1]):.3f}" if len(mean) == 3 else f"{mean[0]:.3f}"
