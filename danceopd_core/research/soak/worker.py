"""Runs attacks in a process of its own, which can be ended when one freezes."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import traceback
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import NamedTuple

from ...errors import InputError, shown
from .outcomes import DIFFERENT, FREEZE, OK, REFUSED, TRACEBACK
from .parsers import ATTACKS, Different

MEMORY = 1024
"""MiB that one attack may add to the most that its process has held."""


class Case(NamedTuple):
    """An attack that can be repeated: the random numbers depend on these three alone."""

    kind: str
    seed: int
    number: int


def attack(case: Case) -> tuple[str, str]:
    """(outcome, what was seen) of one attack, in this process."""
    folder, before = Path(tempfile.mkdtemp(prefix="danceopd-soak-")), _most_memory()
    try:
        ATTACKS[case.kind](folder, Random(f"{case.kind} {case.seed} {case.number}"))
    except InputError as error:
        text = str(error)
        found = (REFUSED, "") if text and text == shown(text) else (TRACEBACK, f"not escaped: {shown(text)}")
    except Different as error:
        found = (DIFFERENT, str(error))
    except BaseException:
        found = (TRACEBACK, traceback.format_exc(limit=-6))
    else:
        found = (OK, "")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    added = _most_memory() - before
    return (FREEZE, f"{added} MiB of memory") if added > MEMORY else found


def _most_memory() -> int:
    """The most memory that this process has held, in MiB; 0 where that is not told."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit


def serve(connection: Connection) -> None:
    """Of the worker process: an outcome for every case that comes."""
    import torch

    torch.set_num_threads(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)  # what asks the user must not wait
    for kind in ATTACKS:  # the imports are no attack's
        attack(Case(kind, 0, -1))
    connection.send("ready")
    while (case := connection.recv()) is not None:
        connection.send(attack(case))


class Worker:
    """A worker process; it is started again after one was ended. A context manager."""

    START = 300.0
    """Seconds for the imports."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=serve, args=(other,), daemon=True)
        self._process.start()
        other.close()
        if not self._connection.poll(self.START) or self._connection.recv() != "ready":
            raise RuntimeError("the worker process did not start")

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()

    def run(self, case: Case) -> tuple[str, str]:
        """The outcome of a case; a freeze, or the end of the process, ends this worker and starts another."""
        self._connection.send(case)
        try:
            if self._connection.poll(self.seconds):
                found: tuple[str, str] = self._connection.recv()
                return found
            told = (FREEZE, f"more than {self.seconds:g} s")
        except EOFError:
            told = (TRACEBACK, "the process ended")
        self.__exit__()
        self._start()
        return told
