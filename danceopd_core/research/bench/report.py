"""Results as a Markdown report: the twelve columns of the paper, their means by capability, and what each row cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .cells import REGIMES, SETTINGS, BenchPlan
from .lines import Line, columns
from .schedule import FORWARDS, UPDATES


def as_markdown(name: str, plan: BenchPlan, found: Sequence[Line]) -> str:
    """The whole report: how it was made, then a table for each setting and each way to compare."""
    return "\n".join(_text(name, plan, found)) + "\n"


def _text(name: str, plan: BenchPlan, found: Sequence[Line]) -> Iterator[str]:
    yield f"# Bench: {name}\n"
    yield (
        f"Held-out items a category: {plan.each}. Mean ± half of the 95 % interval over seeds and items, of scores in "
        f"[0, 1]. An update is {plan.batch} paths for every method. A forward is one sample through the transformer; a "
        "backward counts as two. Seconds are of training, without scoring; targets that teachers draw are in both. "
        "β is the guidance at inference, `inference` the forwards of one picture. `both` is the mean of the setting's "
        "capabilities, `delta` that less the same of `danceopd`, paired by seed and item, `share` the least that any "
        "capability is of its best source, a teacher or the guided base.\n"
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
                yield from _table(rows, [name for name in columns(setting) if any(name in x["marks"] for x in rows)])


def _table(rows: Sequence[Line], names: Sequence[str]) -> Iterator[str]:
    heads = ("row", "data", "β", *names, "seeds", "updates", "forwards", "seconds", "inference")
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for line in rows:
        cells = [line["row"] + (" (diverged)" if line["diverged"] else ""), line["data"], f"{line['beta']:g}"]
        cells += [_cell(line["marks"].get(name)) for name in names]
        cells += [f"{len(line['seeds'])}", f"{line['updates']}", f"{line['forwards']:.0f}", f"{line['seconds']:.0f}"]
        cells.append(f"{line['inference']:g}")
        yield "| " + " | ".join(cells) + " |"


def _cell(mark: Sequence[float] | None) -> str:
    if not mark:
        return ""
    return f"{mark[0]:.3f} ±{max(mark[2] - mark[0], mark[0] - mark[1]):.3f}" if len(mark) == 3 else f"{mark[0]:.3f}"
