"""The part `parsers` of the soak: hostile files, so many of each kind, or for some time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

from .outcomes import BAD, Counts
from .parsers import ATTACKS
from .worker import Case, Worker


def soak_parsers(
    counts: Counts,
    seed: int,
    each: int,
    seconds: float | None,
    freeze: float,
    kinds: Sequence[str],
    first: int,
    log: Callable[[str], None],
) -> None:
    """Adds the outcomes of `each` attacks of each kind from number `first` on, or of as many as `seconds` allow.

    freeze: seconds after which an attack counts as frozen.
    """
    began = time.monotonic()
    with Worker(freeze) as worker:
        for number in count(first) if seconds is not None else range(first, first + each):
            for kind in kinds or ATTACKS:
                if seconds is not None and time.monotonic() - began > seconds:
                    return
                case = Case(kind, seed, number)
                outcome, told = worker.run(case)
                counts.add(kind, outcome, f"--kind {kind!r} --seed {seed} --first {number} --count 1\n{told}")
                if outcome in BAD:
                    log(f"{kind} {number}: {outcome}")


def failures(counts: Counts, folder: Path | None) -> str:
    """What was told of bad outcomes, the first of them; all of them in a file of the folder, if there is one."""
    if folder is not None and counts.told:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bad.txt").write_text("\n\n".join(counts.told), encoding="utf-8", errors="backslashreplace")
    return "\n\n".join(counts.told[:20])
