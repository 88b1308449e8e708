"""Opens models and teachers by the names that recipes give them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from ..algorithm.fields import VelocityField, guided
from ..models.backbone import Backbone
from ..models.hub import fetched, is_hub_id
from ..models.offload import TeacherOffloader
from ..models.registry import open_backbone
from ..recipe.schema import Teacher
from ..shapes import locate
from ..weights.adapters import Adapters
from ..weights.full_checkpoints import load_full_checkpoint
from ..weights.lora_io import read_lora

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the fastest kind available."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def size_or_default(model: str, width: int | None, height: int | None) -> tuple[int, int]:
    """Width and height in pixels; for one that is None or 0 that of the model: 64 if embedded, 1024 otherwise."""
    side = 64 if model == "shapes" else 1024
    return width or side, height or side


def model_folder(name: str, components: Mapping[str, str]) -> Path:
    """The local folder of a recipe's model; a Hugging Face id is downloaded if it is not here yet."""
    return fetched(name, components) if is_hub_id(name) else locate(name)


def open_model(
    name: str,
    components: Mapping[str, str],
    dtype: torch.dtype,
    device: torch.device | str,
    quantise: str | None = None,
) -> Backbone:
    """The backbone of a recipe's `model`, `components` and `quantise`.

    A Hugging Face id is downloaded if it is not here yet.
    """
    folder = model_folder(name, components)
    return open_backbone(folder, dtype, device, {part: Path(file) for part, file in components.items()}, quantise)


def open_teachers(
    teachers: Mapping[str, Teacher], backbone: Backbone, offloader: TeacherOffloader | None = None
) -> tuple[Adapters, dict[str, VelocityField]]:
    """The adapters of the backbone's network, and every teacher's field by name, with its guidance.

    offloader: keeps full checkpoints in host memory and moves one at a time to the device; None: all stay on the
    device.
    """
    checkpoints = {}
    for name, teacher in teachers.items():
        if teacher.checkpoint:
            checkpoints[name] = load_full_checkpoint(backbone.network, locate(teacher.checkpoint))
            if offloader is not None:
                offloader.offload(checkpoints[name], backbone.network)
    adapters = Adapters(backbone.network)
    return adapters, {
        name: _teacher_field(teacher, backbone, adapters, checkpoints.get(name), offloader)
        for name, teacher in teachers.items()
    }


def _teacher_field(
    teacher: Teacher,
    backbone: Backbone,
    adapters: Adapters,
    checkpoint: nn.Module | None,
    offloader: TeacherOffloader | None,
) -> VelocityField:
    if checkpoint is not None:
        backbone, adapters = backbone.with_network(checkpoint), Adapters(checkpoint)
    name = adapters.add_teacher(read_lora(locate(teacher.lora), adapters.shapes)) if teacher.lora else None
    field = adapters.field(backbone.velocity, name, teacher.strength)
    if checkpoint is not None and offloader is not None:
        field = offloader.field(checkpoint, field)
    return guided(field, teacher.guidance, teacher.negative)
