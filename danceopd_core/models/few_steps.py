"""Models that were distilled to few steps: how many, by what their files say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .part_files import read_settings
from .registry import family_of

Settings = Mapping[str, Any]

ZIMAGE_WIDTH = 3840
"""Of the released network; a smaller one with the same schedule is no Turbo."""


def _zimage(index: Settings, scheduler: Settings, network: Settings) -> bool:
    """Turbo and the base differ in nothing but weights and this shift: 3 and 6."""
    fixed = not scheduler.get("use_dynamic_shifting", False)
    return fixed and scheduler.get("shift") == 3.0 and network.get("dim") == ZIMAGE_WIDTH


def _flux(index: Settings, scheduler: Settings, network: Settings) -> bool:
    """FLUX.1 schnell has a schedule that is the same for every picture size, and no guidance."""
    return scheduler.get("use_dynamic_shifting") is False and network.get("guidance_embeds") is False


def _marked(index: Settings, scheduler: Settings, network: Settings) -> bool:
    return index.get("is_distilled") is True


FEW_STEPS: dict[str, tuple[int, Callable[[Settings, Settings, Settings], bool]]] = {
    "ZImagePipeline": (8, _zimage),
    "FluxPipeline": (4, _flux),
    "Flux2KleinPipeline": (4, _marked),
    "Krea2Pipeline": (8, _marked),
}
"""By pipeline: the steps that its distilled models are made for, and whether a folder is of one, by its model_index,
scheduler and transformer settings. They are made without guidance too."""


def own_steps(folder: Path) -> int | None:
    """The number of steps that the model of a sound folder was distilled to; None: it was not."""
    index = family_of(folder)[1]
    steps, distilled = FEW_STEPS.get(index["_class_name"], (None, None))
    if distilled is None:
        return None
    scheduler = read_settings(folder / "scheduler" / "scheduler_config.json")
    return steps if distilled(index, scheduler, read_settings(folder / "transformer" / "config.json")) else None
