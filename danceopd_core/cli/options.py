"""Options that several commands share, and the model that they describe."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import torch

    from ..algorithm.fields import VelocityField
    from ..models.backbone import Backbone

RESEARCH = Path(__file__).parent.parent / "research"
MODEL = "'shapes' (embedded), a diffusers folder or Hugging Face id"
LORA = "a LoRA file, or 'shapes:NAME'"
COMPONENT = (
    "weights of a part of the model in one file, as ComfyUI has them: transformer=FILE, vae=FILE, text_encoder=FILE"
)


def add_component(parser: ArgumentParser) -> None:
    parser.add_argument("--component", action="append", default=[], metavar="PART=FILE", help=COMPONENT)


def add_device_and_dtype(parser: ArgumentParser) -> None:
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16", "float16"))


def components_of(words: Sequence[str]) -> dict[str, str]:
    """PART=FILE words as a mapping; InputError for an unknown part or a missing file."""
    from ..lookup import lookup
    from ..models.backbone import COMPONENTS

    parts = dict(word.partition("=")[::2] for word in words)
    for part, file in parts.items():
        lookup(dict.fromkeys(COMPONENTS), part, "part of a model")
        if not Path(file).is_file():
            raise InputError(f"--component {part}={file}: the file does not exist: give the path of a weights file")
    return parts


def open_field(
    args: Namespace,
    device: torch.device,
    dtype: torch.dtype,
    lora: str | None,
    strength: float = 1.0,
    checkpoint: str | None = None,
) -> tuple[Backbone, VelocityField]:
    """The backbone of --model and --component, and its unguided field with a full checkpoint and a LoRA, if given."""
    from ..runs.plans.opening import FILES, open_model

    backbone = open_model(args.model, components_of(args.component), dtype, device)
    if checkpoint:
        backbone = FILES.checkpoint(checkpoint, backbone)
    adapters = FILES.adapters(backbone)
    name = adapters.add_teacher(FILES.read_lora(lora, backbone, adapters.shapes)) if lora else None
    return backbone, adapters.field(backbone.velocity, name, strength)


def require_research(command: str) -> None:
    """InputError if `danceopd_core/research` is not installed, as in the archive of ComfyUI's registry."""
    if not (RESEARCH / "__init__.py").is_file():
        raise InputError(
            f"{command} is not part of this installation, which has no danceopd_core/research: clone the project's "
            "repository and run 'pip install -e .' there"
        )
