"""The embedded world: flat shapes, captions, edits, an exact judge, and a tiny Z-Image pipeline that knows them."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..lookup import lookup

MODEL = Path(__file__).parent / "model"
"""The diffusers folder of the embedded model; its LoRA teachers lie in `MODEL / "loras"`."""

GUIDANCE = 2.0
"""Classifier-free guidance with which the base draws best (`danceopd shapes score --guidance`)."""


def is_embedded(name: str) -> bool:
    """Whether a name means a part of the embedded model, "shapes" or "shapes:...", and no file."""
    return name == "shapes" or name.startswith("shapes:")


def embedded() -> dict[str, Path]:
    """The parts of the embedded model that are there: itself, its LoRA teachers, and its full checkpoint."""
    found = {f"shapes:{file.stem}": file for file in sorted((MODEL / "loras").glob("*.safetensors"))}
    if (MODEL / "realism").is_dir():
        found["shapes:realism"] = MODEL / "realism"
    return {"shapes": MODEL, **found} if (MODEL / "model_index.json").is_file() else found


def locate(name: str) -> Path:
    """The path that a name in a recipe means: of a part of the embedded model, else the name itself.

    InputError, with what there is, for a part that is not there.
    """
    if not is_embedded(name):
        return Path(name)
    found = embedded()
    if not found:
        raise InputError(f"{name!r} is not here: {MODEL} holds no embedded model")
    return lookup(found, name, "part of the embedded world")
