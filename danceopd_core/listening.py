"""Long work tells how far it is, and hears that it shall end, wherever it is: also inside of a library.

Inside `with listening(tell)`, `tell` is called at every counted step; with `libraries` also between two steps, when
torch is asked for something and INTERVAL has passed. What it raises ends the work. Other threads are not heard.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

from torch.overrides import TorchFunctionMode

INTERVAL = 0.2
"""Seconds."""


@dataclass(frozen=True)
class Step:
    """What is being done, and how many of how many parts of it are done. total: 0 where they are not counted."""

    what: str = ""
    done: int = 0
    total: int = 0


Tell = Callable[[Step], None]


class _Ear(TorchFunctionMode):
    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self.tell, self.step = tell, Step()
        self.ended: BaseException | None = None
        self._next = 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.ended is None and time.monotonic() >= self._next:  # what cleans up after the end is not ended too
            self.hear()
        return func(*args, **(kwargs or {}))

    def hear(self) -> None:
        if self.ended is not None:
            raise self.ended
        self._next = time.monotonic() + INTERVAL
        try:
            self.tell(self.step)
        except BaseException as error:
            self.ended = error
            raise


_EAR: ContextVar[_Ear | None] = ContextVar("ear", default=None)


@contextmanager
def listening(tell: Tell, libraries: bool = True) -> Iterator[None]:
    """Calls `tell` during the work of the block. What it raised comes out of the block, whatever a library made of it.

    libraries: also between two calls of torch; compiled networks would be compiled anew for it.
    """
    ear = _Ear(tell)
    token = _EAR.set(ear)
    try:
        with ear if libraries else nullcontext():
            yield
    except BaseException as error:
        if ear.ended is not None and error is not ear.ended:
            raise ear.ended from None
        raise
    finally:
        _EAR.reset(token)
    if ear.ended is not None:
        raise ear.ended


@contextmanager
def work(what: str, total: int = 0) -> Iterator[None]:
    """The block is this work, in `total` parts."""
    ear = _EAR.get()
    if ear is None:
        yield
        return
    before, ear.step = ear.step, Step(what, 0, total)
    ear.hear()
    try:
        yield
    finally:
        ear.step = before


def reached(count: int) -> bool:
    """So many parts of the work are done; returns whether anyone listens."""
    ear = _EAR.get()
    if ear is not None:
        ear.step = replace(ear.step, done=count)
        ear.hear()
    return ear is not None


def one_more() -> None:
    """One more part of the work is done."""
    ear = _EAR.get()
    if ear is not None:
        reached(ear.step.done + 1)


def heard() -> None:
    """A place at which the work can end."""
    ear = _EAR.get()
    if ear is not None:
        ear.hear()
