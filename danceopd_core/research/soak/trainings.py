"""The part `trainings` of the soak: many trainings queued in one server, whose memory must not grow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean

from .comfy_server import ComfyServer, ServerGone
from .graphs import succeeded, training
from .outcomes import DIFFERENT, FREEZE, OK, TRACEBACK, Counts

WARM = 20
"""Trainings before memory is held against what it is later."""
GROWTH = 0.02
"""Of the memory, at most."""


def soak_trainings(
    counts: Counts, count: int, seed: int, freeze: float, comfyui: Path, folder: Path, log: Callable[[str], None]
) -> list[float]:
    """Adds the outcomes of `count` trainings in one server; the MiB that the server held after each of them.

    freeze: seconds that one training may take. A growth of memory beyond GROWTH counts as `different`.
    """
    held: list[float] = []
    with ComfyServer(comfyui, folder) as server:
        queued = [server.ask("/prompt", {"prompt": training(f"soak{n}", seed + n)})[1] for n in range(count)]
        for number, answer in enumerate(queued):
            try:
                entry = server.wait(answer["prompt_id"], freeze)
            except ServerGone as error:
                counts.add("trainings", TRACEBACK, f"the server is gone after {number}: {error}")
                return held
            held.append(server.memory())
            if entry is None:
                counts.add("trainings", FREEZE, f"number {number}: more than {freeze:g} s")
                return held
            told = "" if succeeded(entry) else str(entry["status"]["messages"][-1])[:1500]
            counts.add("trainings", OK if succeeded(entry) else TRACEBACK, told)
            if (number + 1) % 20 == 0:
                log(f"{number + 1} trainings: {held[-1]:.0f} MiB")
    if (grown := growth(held)) is not None:
        text = f"memory after {len(held)} trainings: {grown:+.2%} of that after {WARM}"
        log(text)
        counts.add("memory of the server", OK if grown <= GROWTH else DIFFERENT, text)
    return held


def growth(held: list[float]) -> float | None:
    """How much more the last trainings held than the first after WARM, as a fraction; None for too few trainings."""
    window = min(WARM, (len(held) - WARM) // 2)
    if window < 1:
        return None
    before = mean(held[WARM : WARM + window])
    return (mean(held[-window:]) - before) / before
