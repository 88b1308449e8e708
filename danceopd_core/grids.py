"""Which sigmas the student's path visits: the model's own, or a grid that is the same for every model and size."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from .flow import linear_sigmas
from .names import lookup
from .recipe import Shift

GRIDS: dict[str, float | None] = {"model": None, "paper": 3.0}
"""Grids by name: the shift of evenly spaced sigmas; None: what the model's scheduler makes.

paper: the grid on which DanceOPD trained Z-Image.
"""


def path_sigmas(chosen: str | Shift, steps: int, own: Callable[[], Tensor]) -> Tensor:
    """The (steps + 1,) sigmas of a path, from 1 to 0; `own` gives the model's.

    A shift takes the place of all that the model's scheduler does: shifting by picture size (FLUX, Qwen-Image), the
    stretch to a last sigma (Qwen-Image), the second shift (Stable Diffusion 3).
    """
    shift = chosen.shift if isinstance(chosen, Shift) else lookup(GRIDS, chosen, "grid of sigmas")
    return own() if shift is None else linear_sigmas(steps, shift)
