"""Models that were distilled to few steps: how many, by what their files say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from .part_files import read_settings
from .registry import family_of

Settings = Mapping[str, Any]

ZIMAGE_WIDTH = 3840
"""Of the released network; a smaller one with the same schedule is no Turbo."""


def _zimage(index: Settings, scheduler: Settings, network: Settings) -> int | None:
    """Turbo and the base differ in nothing but weights and this shift: 3 and 6."""
    fixed = not scheduler.get("use_dynamic_shifting", False)
    return 8 if fixed and scheduler.get("shift") == 3.0 and network.get("dim") == ZIMAGE_WIDTH else None


def _flux(index: Settings, scheduler: Settings, network: Settings) -> int | None:
    """FLUX.1 schnell has a schedule that is the same for every picture size, and no guidance."""
    return 4 if scheduler.get("use_dynamic_shifting") is False and network.get("guidance_embeds") is False else None


def _marked(steps: int, index: Settings, scheduler: Settings, network: Settings) -> int | None:
    return steps if index.get("is_distilled") is True else None


def _listed(index: Settings, scheduler: Settings, network: Settings) -> int | None:
    """Qwen-Image-2.1-Turbo brings its sigmas."""
    return len(index.get("sample_sigmas") or ()) or None


FEW_STEPS: dict[str, Callable[[Settings, Settings, Settings], int | None]] = {
    "ZImagePipeline": _zimage,
    "FluxPipeline": _flux,
    "Flux2KleinPipeline": partial(_marked, 4),
    "Krea2Pipeline": partial(_marked, 8),
    "QwenImage21Pipeline": _listed,
}
"""By pipeline: the steps that the model of a folder was distilled to, by its model_index, scheduler and transformer
settings; None: it was not. Such models are made without guidance too."""


def own_steps(folder: Path) -> int | None:
    """The number of steps that the model of a sound folder was distilled to; None: it was not."""
    index = family_of(folder)[1]
    distilled = FEW_STEPS.get(index["_class_name"])
    if distilled is None:
        return None
    scheduler = read_settings(folder / "scheduler" / "scheduler_config.json")
    return distilled(index, scheduler, read_settings(folder / "transformer" / "config.json"))
