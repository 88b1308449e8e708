"""The embedded world: shapes, captions, edits, an exact judge, and a small Z-Image pipeline trained on them."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from ..lookup import lookup

MODEL = Path(__file__).parent / "model"
"""The diffusers folder of the embedded model; its LoRA teachers are in `MODEL / "loras"`."""

GUIDANCE = 2.0
"""The guidance scale at which the base scores best (`danceopd shapes score --guidance`)."""


NATIVE = "shapes:native_"
"""How the names of LoRAs begin that were trained over the embedded model in ComfyUI's own network."""

ONLY_NATIVE = (
    "is a LoRA for the embedded model in ComfyUI's own network, which numbers the positions of an edit otherwise: use "
    "it over Load Shapes, and here the LoRA of that name without native_"
)
"""Why such a LoRA is refused elsewhere, to follow its name."""


def is_native(name: str) -> bool:
    """Whether a name means a LoRA for the embedded model in ComfyUI's own network."""
    return name.startswith(NATIVE)


def is_embedded(name: str) -> bool:
    """Whether a name is a part of the embedded model, "shapes" or "shapes:...", and not a path."""
    return name == "shapes" or name.startswith("shapes:")


def embedded() -> dict[str, Path]:
    """Name -> path of the installed parts: the model, its LoRA teachers, and its full checkpoint."""
    parts = {f"shapes:{file.stem}": file for file in sorted((MODEL / "loras").glob("*.safetensors"))}
    if (MODEL / "realism").is_dir():
        parts["shapes:realism"] = MODEL / "realism"
    return {"shapes": MODEL, **parts} if (MODEL / "model_index.json").is_file() else parts


def locate(name: str) -> Path:
    """The path for a name in a recipe: of a part of the embedded model, else the name itself.

    InputError, with the known names, for a part that does not exist.
    """
    if not is_embedded(name):
        return Path(name)
    parts = embedded()
    if not parts:
        raise InputError(f"{name!r} is not installed: {MODEL} holds no embedded model: install the pack again")
    return lookup(parts, name, "part of the embedded world")
