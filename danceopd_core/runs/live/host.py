"""What the work on an opened model needs from the program around it, such as ComfyUI: cancelling and progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

from ...listening import Step, Tell


class Host(Protocol):
    """The program around a run. check: raises `cancelled` if the user cancelled. progress: of the updates or steps;
    preparing: of what comes before or between them, in counted parts."""

    cancelled: type[BaseException]

    def check(self) -> None: ...
    def progress(self, value: int, total: int) -> None: ...
    def preparing(self, done: int, total: int) -> None: ...
    def memory_mb(self) -> float: ...


def step_counter(host: Host, total: int) -> Callable[[int, torch.Tensor], None]:
    """A sampler's step callback that shows the host the progress over `total` steps and lets it cancel."""
    done = 0

    def step(index: int, x: torch.Tensor) -> None:
        nonlocal done
        done += 1
        host.check()
        host.progress(done, total)

    return step


def told_to(host: Host, show: Callable[[Step], None] = lambda step: None) -> Tell:
    """For `listening`: shows the host how far the work is, and lets it cancel. show: hears of it too."""

    def tell(step: Step) -> None:
        host.check()
        show(step)
        if step.total:
            host.preparing(step.done, step.total)

    return tell
