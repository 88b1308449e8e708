"""Cells one after another here, or several at a time in processes of their own: small models leave cores idle."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import Any

import torch

from .cells import Cell, Plan
from .stage import Stage

Job = Callable[[Cell, Stage], dict[str, Any]]
Done = tuple[Cell, dict[str, Any], float]
"""A cell, its result and the seconds that it took."""
Run = Callable[[Job, Sequence[Cell]], Iterator[Done]]

_stage: Stage | None = None


@contextmanager
def workers(plan: Plan, device: torch.device, jobs: int) -> Iterator[tuple[Stage, Run]]:
    """A stage of this process, and what runs a job on cells, `jobs` of them at a time, in the order they finish.

    Meanwhile every process has its share of the cores. What a job raises ends the run; cells begun elsewhere finish,
    and their results are lost.
    """
    before, threads = torch.get_num_threads(), max(1, (os.cpu_count() or 1) // jobs)
    if jobs == 1:
        stage = Stage(plan, device)
        yield stage, lambda job, cells: (_timed(job, cell, stage) for cell in cells)
        return
    torch.set_num_threads(threads)
    # Not forked: a child would inherit this process's thread pools as they are, locked or not.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (plan, device, threads))
    try:
        yield Stage(plan, device), lambda job, cells: _each(pool, job, cells)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _each(pool: ProcessPoolExecutor, job: Job, cells: Sequence[Cell]) -> Iterator[Done]:
    for future in as_completed([pool.submit(_work, job, cell) for cell in cells]):
        yield future.result()


def _begin(plan: Plan, device: torch.device, threads: int) -> None:
    global _stage
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _stage = Stage(plan, device)


def _leave_with_parent() -> None:
    """A parent that was killed tells its workers nothing: they would wait for cells for ever."""
    parent = parent_process()
    assert parent is not None  # this is one of its workers
    parent.join()
    os._exit(1)


def _work(job: Job, cell: Cell) -> Done:
    assert _stage is not None  # begun before the first cell
    return _timed(job, cell, _stage)


def _timed(job: Job, cell: Cell, stage: Stage) -> Done:
    began = time.perf_counter()
    return cell, job(cell, stage), time.perf_counter() - began
