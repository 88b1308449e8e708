"""What the work on an opened model needs from the program around it, such as ComfyUI: cancelling and progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from PIL import Image


class Host(Protocol):
    """The program around a run. check: raises `cancelled` if the user cancelled."""

    cancelled: type[BaseException]

    def check(self) -> None: ...
    def progress(self, value: int, total: int, picture: Image.Image | None = None) -> None: ...
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
