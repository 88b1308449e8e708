"""Runs trials one after another in this process, or several at a time in worker processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import NamedTuple

import torch

from .context import BenchContext
from .results import TrialResult
from .trials import BenchPlan, Trial

Job = Callable[[Trial, BenchContext], TrialResult]


class Finished(NamedTuple):
    """A trial, its result and the seconds that it took."""

    trial: Trial
    result: TrialResult
    seconds: float


Run = Callable[[Job, Sequence[Trial]], Iterator[Finished]]

_context: BenchContext | None = None
"""Of this worker process."""


@contextmanager
def workers(plan: BenchPlan, device: torch.device, jobs: int) -> Iterator[tuple[BenchContext, Run]]:
    """A context of this process, and a function that runs a job on trials, `jobs` of them at a time.

    The function yields in order of completion. Each process has an equal share of the cores until the block ends. An
    exception in a job ends the run; trials that other workers have begun complete, and their results are lost.
    """
    before, threads = torch.get_num_threads(), max(1, (os.cpu_count() or 1) // jobs)
    if jobs == 1:
        context = BenchContext(plan, device)
        yield context, lambda job, trials: (_timed(job, trial, context) for trial in trials)
        return
    torch.set_num_threads(threads)
    # Not forked: a child would inherit this process's thread pools as they are, locked or not.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _start_worker, (plan, device, threads))
    try:
        yield BenchContext(plan, device), lambda job, trials: _parallel(pool, job, trials)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)


def _parallel(pool: ProcessPoolExecutor, job: Job, trials: Sequence[Trial]) -> Iterator[Finished]:
    for future in as_completed([pool.submit(_run, job, trial) for trial in trials]):
        yield future.result()


def _start_worker(plan: BenchPlan, device: torch.device, threads: int) -> None:
    global _context
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _context = BenchContext(plan, device)


def _exit_with_parent() -> None:
    """A parent that is killed cannot shut its workers down: they would wait for trials forever."""
    parent = parent_process()
    assert parent is not None  # this is one of its workers
    parent.join()
    os._exit(1)


def _run(job: Job, trial: Trial) -> Finished:
    assert _context is not None  # set by `_start_worker`
    return _timed(job, trial, _context)


def _timed(job: Job, trial: Trial, context: BenchContext) -> Finished:
    began = time.perf_counter()
    return Finished(trial, job(trial, context), time.perf_counter() - began)
