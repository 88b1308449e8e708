"""Sigma schedules of rollouts: the model's own, from its folder's configuration, or evenly spaced and shifted."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..algorithm.flow import linear_sigmas
from ..lookup import lookup
from .loading import ModelFolder, load_part, settings_of
from .part_rules import PARTS
from .registry import family_of
from .vaes import FACTORS, token_pixels

SIGMA_SCHEDULES: dict[str, float | None] = {"model": None, "paper": 3.0}
"""Schedules by name: the shift of evenly spaced sigmas; None: the model's own schedule.

paper: the schedule with which DanceOPD trained Z-Image.
"""


def path_sigmas(chosen: str | float, steps: int, own: Callable[[], Tensor]) -> Tensor:
    """The (steps + 1,) sigmas of a rollout, from 1 to 0, by a name of `SIGMA_SCHEDULES` or a shift.

    `own` computes the model's schedule. A shift replaces all that the model's scheduler does: shifting by picture size
    (FLUX, Qwen-Image), the stretch to a terminal sigma (Qwen-Image), the second shift (Stable Diffusion 3).
    """
    shift = lookup(SIGMA_SCHEDULES, chosen, "sigma schedule") if isinstance(chosen, str) else chosen
    return own() if shift is None else linear_sigmas(steps, shift)


def scheduled(scheduler: Any, tokens: int, spacing: Mapping[str, Any]) -> Tensor:
    """The scheduler's sigmas (steps + 1,), shifted for this number of tokens if its configuration says so.

    spacing: arguments of `set_timesteps`; "mu", where there is one, is a function of the number of tokens. "each": by
    what the number of tokens is larger than given here.
    """
    scheduler, spacing = copy.deepcopy(scheduler), dict(spacing)
    tokens *= spacing.pop("each", 1)
    mu: Callable[[int], float] = spacing.pop("mu", partial(_linear_mu, scheduler.config))
    scheduler.set_timesteps(mu=mu(tokens), **spacing)
    return scheduler.sigmas.float()


def _linear_mu(config: Any, tokens: int) -> float:
    slope = (config.max_shift - config.base_shift) / (config.max_image_seq_len - config.base_image_seq_len)
    return tokens * slope + (config.base_shift - slope * config.base_image_seq_len)


def even_spacing(steps: int, index: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments of `set_timesteps` for sigmas that fall evenly from 1 to 1 / steps (FLUX.1, Qwen-Image)."""
    return {"sigmas": np.linspace(1.0, 1 / steps, steps)}


def folder_sigmas(folder: Path, steps: int, width: int, height: int) -> Tensor:
    """`Backbone.sigmas` of the model in a folder, without opening it, for a picture size that it supports."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    family, index = family_of(folder)
    multiple = size_multiple(folder)
    scheduler = load_part(FlowMatchEulerDiscreteScheduler, ModelFolder(folder), "scheduler")
    spacing = import_module(f".{family.module}", __package__).spacing(steps, index)
    return scheduled(scheduler, (width // multiple) * (height // multiple), spacing)


def size_multiple(folder: Path) -> int:
    """`Backbone.size_multiple` of the model in a folder, without opening it."""
    family, _ = family_of(folder)
    vae = PARTS[family.module]["vae"]
    return token_pixels(vae, FACTORS[vae](settings_of(ModelFolder(folder), "vae", vae)))


def longest_side(folder: Path) -> float:
    """The longest side in pixels for which the model in a folder has positions; infinite if it takes any."""
    family, _ = family_of(folder)
    config = settings_of(ModelFolder(folder), "transformer", PARTS[family.module]["transformer"])
    lengths, table = config.get("axes_lens"), config.get("pos_embed_max_size")
    patches = min(lengths[1:]) if lengths else table or math.inf
    return float(patches * size_multiple(folder))
