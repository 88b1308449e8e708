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

from .cells import BenchPlan, Trial
from .stage import BenchContext

Job = Callable[[Trial, BenchContext], dict[str, Any]]
Done = tuple[Trial, dict[str, Any], float]
"""A cell, its result and the seconds that it took."""
Run = Callable[[Job, Sequence[Trial]], Iterator[Done]]

_stage: BenchContext | None = None


@contextmanager
def workers(plan: BenchPlan, device: torch.device, jobs: int) -> Iterator[tuple[BenchContext, Run]]:
    """A stage of this process, and what runs a job on cells, `jobs` of them at a time, in the order they finish.

    Meanwhile every process has its share of the cores. What a job raises ends the run; cells begun elsewhere finish,
    and their results are lost.
    """
    before, threads = torch.get_num_threads(), max(1, (os.cpu_count() or 1) // jobs)
    if jobs == 1:
        stage = BenchContext(plan, device)
        yield stage, lambda job, cells: (_timed(job, cell, stage) for cell in cells)
        return
    torch.set_num_threads(threads)
    # Not forked: a child would inherit this process's thread pools as they are, locked or not.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (plan, device, threads))
    try:
        yield BenchContext(plan, device), lambda job, cells: _each(pool, job, cells)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _each(pool: ProcessPoolExecutor, job: Job, cells: Sequence[Trial]) -> Iterator[Done]:
    for future in as_completed([pool.submit(_work, job, cell) for cell in cells]):
        yield future.result()


def _begin(plan: BenchPlan, device: torch.device, threads: int) -> None:
    global _stage
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _stage = BenchContext(plan, device)


def _leave_with_parent() -> None:
    """A parent that was killed tells its workers nothing: they would wait for cells for ever."""
    parent = parent_process()
    assert parent is not None  # this is one of its workers
    parent.join()
    os._exit(1)


def _work(job: Job, cell: Trial) -> Done:
    assert _stage is not None  # begun before the first cell
    return _timed(job, cell, _stage)


def _timed(job: Job, cell: Trial, stage: BenchContext) -> Done:
    began = time.perf_counter()
    return cell, job(cell, stage), time.perf_counter() - began
