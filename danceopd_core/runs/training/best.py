"""The best student of a run: the one that was closest to its teachers on the prompts of the validations.

RUN/best.safetensors          its LoRA
RUN/best-000075.safetensors   the one before it, until the next state is saved: a run that is resumed may not have come
                              as far as the best
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..files.numbers import finite, is_update
from ..files.run_id import facts_of_lora
from ..files.state_files import keep_as

if TYPE_CHECKING:
    from .session import TrainingSession

BEST = "best.safetensors"
NEAR = 0.05
"""A route whose start is less than this part of the farthest one's begins at its teacher."""
_EARLIER = re.compile(r"best-(-?\d{5,})\.safetensors")
"""Also of numbers that no update has: such files are removed."""


class Best(NamedTuple):
    """percent: the mean over the trained routes, of each one's distance in percent of its `whole`."""

    update: int
    percent: float


def wholes(start: Mapping[str, Any], routes: Collection[str]) -> dict[str, float]:
    """By trained route, the distance that counts as 100 percent: that of its start.

    For a route that begins at its teacher, of which any percentage would be infinite, that of the farthest one. Empty
    if a start is not known.
    """
    found = {name: value for name in routes if (value := finite(start.get(name))) is not None}
    most = max(found.values(), default=0.0)
    if len(found) < len(routes) or most <= 0:
        return {}
    return {name: value if value >= NEAR * most else most for name, value in found.items()}


def percent(start: Mapping[str, Any], errors: Mapping[str, Any], routes: Collection[str]) -> float | None:
    """The mean over these routes; None where an error or a start is not known, or where no float holds it."""
    whole = wholes(start, routes)
    parts = [100 * value / of for name, of in whole.items() if (value := finite(errors.get(name))) is not None]
    mean = sum(parts) / len(parts) if parts and len(parts) == len(routes) else math.inf
    return mean if math.isfinite(mean) else None


def best_of(validations: Iterable[Mapping[str, Any]], routes: Collection[str]) -> Best | None:
    """The best of the entries of a run's validation.jsonl after the start, whose update is 0; None without one."""
    entries = [e for e in validations if isinstance(e.get("errors"), Mapping) and is_update(e.get("update"))]
    start: Mapping[str, Any] = next((entry["errors"] for entry in entries if entry["update"] == 0), {})
    found = [Best(entry["update"], value) for entry in entries if entry["update"] > 0
             if (value := percent(start, entry["errors"], routes)) is not None]  # fmt: skip
    return min(found, key=lambda best: (best.percent, best.update), default=None)


class BestFile:
    """The file of the best student in a run's folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / BEST

    @property
    def update(self) -> int | None:
        """Of the student in the file; None if there is none."""
        return update_of(self.path)

    def write(self, session: TrainingSession, run: str) -> None:
        """Puts the student as it is now in the place of the one before, which stays as well until `settle`."""
        if (before := self.update) is not None and before != session.trainer.update:
            place = self.path.with_name(f"best-{before:06d}.safetensors")
            keep_as(self.path, place)
        session.write_student(self.path, datetime.now(timezone.utc).isoformat(timespec="seconds"), run)

    def settle(self) -> None:
        """A state is saved that has the best behind it."""
        for path in self._earlier():
            path.unlink()

    def cut(self, update: int) -> None:
        """Goes back to the best that there was at an update."""
        if (self.update or 0) > update:
            self.path.unlink()
        for path, number in sorted(self._earlier().items(), key=lambda pair: pair[1], reverse=True):
            if 0 <= number <= update and not self.path.exists():
                os.replace(path, self.path)
            else:
                path.unlink()

    def _earlier(self) -> dict[Path, int]:
        found = {path: _EARLIER.fullmatch(path.name) for path in self.path.parent.glob("best-*.safetensors")}
        return {path: int(match[1]) for path, match in found.items() if match and path.is_file()}


def update_of(file: Path) -> int | None:
    """The update of the student in a LoRA file of a run; None if the file does not say, or is not there."""
    update = facts_of_lora(file).get("update")
    return update if is_update(update) else None
