"""How an attack can end, and how many ended in which way."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

OK, REFUSED, TRACEBACK, FREEZE, DIFFERENT = OUTCOMES = ("ok", "refused", "traceback", "freeze", "different")
"""ok: it was taken. refused: in one sentence. traceback: any other exception, or the end of the process. freeze: it
took too long, or too much memory. different: a resumed run, or a file read again, is another one."""
BAD = (TRACEBACK, FREEZE, DIFFERENT)


@dataclass
class Counts:
    """Outcomes by kind of attack, and what is needed to repeat the bad ones."""

    by_kind: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    told: list[str] = field(default_factory=list)

    def add(self, kind: str, outcome: str, told: str = "", count: int = 1) -> None:
        """told: of a bad outcome, how to repeat it and what was seen."""
        self.by_kind[kind][outcome] += count
        if outcome in BAD:
            self.told.append(f"{kind}: {outcome}: {told}")

    def merge(self, kind: str, found: Mapping[str, int]) -> None:
        """Adds outcomes that were counted elsewhere."""
        for outcome, count in found.items():
            if count and outcome in OUTCOMES:
                self.add(kind, outcome, f"{count} of them", count)

    @property
    def bad(self) -> int:
        return sum(counter[outcome] for counter in self.by_kind.values() for outcome in BAD)

    def table(self) -> str:
        """Markdown: a row a kind, a column an outcome."""
        rows = [("attacks", *OUTCOMES), ("---", *("---:" for _ in OUTCOMES))]
        rows += [(kind, *(str(counter[name]) for name in OUTCOMES)) for kind, counter in self.by_kind.items()]
        total = sum(self.by_kind.values(), Counter[str]())
        rows.append(("all", *(str(total[name]) for name in OUTCOMES)))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)
