"""What `danceopd memory` computes for cases, in processes of their own while the device measures others."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, replace

import torch

from ...runs.budget.ladder import choose
from ...runs.budget.memory import GIB
from ...runs.budget.released import released_estimate, with_checkpoint
from .cases import PeakCase

WORKERS = 8


@dataclass(frozen=True)
class Computed:
    """Bytes at the peak of an update, and the case itself, with what `memory: auto` chose for it in `choice`."""

    peak: int
    case: PeakCase
    choice: str = ""


def computed(cases: Sequence[PeakCase], kinds: Sequence[str] = ()) -> list[Computed]:
    """Of cases that share model, rank and edits. kinds: the quantisations that can be loaded."""
    first, found = cases[0], []
    plain = released_estimate(first.model, first.rank, first.edit)
    for case in cases:
        made = with_checkpoint(plain) if case.full else plain
        if case.free is not None:
            choice = choose(made, int(case.free * GIB), kinds)
            recipe, memory = choice.recipe, choice.memory
            case = replace(case, checkpointing=bool(recipe.gradient_checkpointing), base=recipe.quantise)
            assert memory is not None  # its figures were given
            found.append(Computed(memory.update, case, choice.text()))
        else:
            recipe = replace(made.recipe, quantise=case.base)  # type: ignore[arg-type]
            found.append(Computed(made.memory(recipe, case.checkpointing, 1).update, case))
    return found


class Computing:
    """Computes all of these cases from now on; `of` waits for one of them."""

    def __init__(self, cases: Sequence[PeakCase], kinds: Sequence[str]) -> None:
        self._pool = ProcessPoolExecutor(
            max(1, min(WORKERS, (os.cpu_count() or 1) // 2)),
            multiprocessing.get_context("spawn"),
            torch.set_num_threads,
            (1,),
        )
        shared: dict[tuple[str, int, bool], list[PeakCase]] = {}
        for case in cases:
            shared.setdefault((case.model, case.rank, case.edit), []).append(case)
        self._found: Mapping[PeakCase, tuple[Future[list[Computed]], int]] = {
            case: (future, number)
            for alike in shared.values()
            for future in [self._pool.submit(computed, alike, kinds)]
            for number, case in enumerate(alike)
        }

    def of(self, case: PeakCase) -> Computed:
        future, number = self._found[case]
        return future.result()[number]

    def done(self, case: PeakCase) -> bool:
        return self._found[case][0].done()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
