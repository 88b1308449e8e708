"""Opens models, teachers and the student by the names that recipes give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from ...algorithm.fields import VelocityField, guided, of_model
from ...errors import InputError, naming
from ...models.backbone import Backbone
from ...models.offload import TeacherOffloader
from ...recipe.file_names import LIVE
from ...recipe.schema import Student, Teacher
from ...weights.adapters import Adapters
from ...weights.lora import Lora, fresh_lora
from .other_models import OtherModel
from .sources import FileWeights, FolderSource, Weights

FILES = FileWeights()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is the fastest kind available. InputError if it is not in this machine."""
    if name != "auto":
        device = torch.device(name)
        check_there(device)
        return device
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_there(device: torch.device) -> None:
    """InputError if the device is not in this machine, or this torch is not built for it."""
    if device.type == "cpu":
        return
    library = getattr(torch, device.type, None)
    there = torch.backends.mps.is_available() if device.type == "mps" else library and library.is_available()
    count = library.device_count() if library and there else 0
    if count <= (device.index or 0):
        also = f", and {count} of {device.type}, from 0 on" if count else ""
        raise InputError(f"device {device} is not in this machine, or torch is not built for it: use auto or cpu{also}")


def size_or_default(model: str, width: int | None, height: int | None) -> tuple[int, int]:
    """Width and height in pixels; for one that is None or 0 that of the model: 64 if embedded, 1024 otherwise."""
    side = 64 if model == "shapes" or model.startswith(f"{LIVE}Shapes:") else 1024
    return width or side, height or side


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
    return FolderSource(name, components, quantise).open(dtype, device)


def open_teachers(
    teachers: Mapping[str, Teacher],
    backbone: Backbone,
    offloader: TeacherOffloader | None = None,
    weights: Weights = FILES,
    others: Mapping[str, OtherModel] | None = None,
    prepare: Callable[[Backbone, Adapters], None] | None = None,
) -> tuple[Adapters, dict[str, VelocityField]]:
    """The adapters of the backbone's network, and every teacher's field by name, with its guidance.

    offloader: keeps full checkpoints in host memory, if it is active, and moves one at a time to the device; None: all
    stay on the device. weights: where the teachers' LoRAs and checkpoints are read. others: the opened models that
    teachers have for themselves, by name. prepare: is given the backbone and every full checkpoint of it, with their
    adapters.
    """
    own = {name: teacher for name, teacher in teachers.items() if not teacher.model}
    adapters, fields = _open_own(own, backbone, offloader, weights, prepare)
    for model, other in (others or {}).items():
        theirs = {name: teacher for name, teacher in teachers.items() if teacher.model == model}
        _, opened = _open_own(theirs, other.backbone, offloader, other.weights)
        fields |= {name: of_model(field, model, other.shape) for name, field in opened.items()}
    return adapters, {name: fields[name] for name in teachers}


def _open_own(
    teachers: Mapping[str, Teacher],
    backbone: Backbone,
    offloader: TeacherOffloader | None,
    weights: Weights,
    prepare: Callable[[Backbone, Adapters], None] | None = None,
) -> tuple[Adapters, dict[str, VelocityField]]:
    checkpoints = {}
    for name, teacher in teachers.items():
        if teacher.checkpoint:
            with naming(f"teachers.{name}.checkpoint"):
                waits = offloader is not None and offloader.active
                checkpoints[name] = weights.checkpoint(teacher.checkpoint, backbone, waits)
            if offloader is not None:
                offloader.offload(checkpoints[name].network, backbone.network)
    adapters = weights.adapters(backbone)
    adapted = {name: (checkpoint, weights.adapters(checkpoint)) for name, checkpoint in checkpoints.items()}
    if prepare is not None:
        for each in ((backbone, adapters), *adapted.values()):
            prepare(*each)
    fields = {}
    for name, teacher in teachers.items():
        with naming(f"teachers.{name}.lora"):
            fields[name] = _teacher_field(teacher, *adapted.get(name, (backbone, adapters)), weights)
        if name in checkpoints and offloader is not None:
            fields[name] = offloader.field(checkpoints[name].network, fields[name])
        fields[name] = guided(fields[name], teacher.guidance, teacher.negative)
    return adapters, fields


def _teacher_field(teacher: Teacher, backbone: Backbone, adapters: Adapters, weights: Weights) -> VelocityField:
    """Without its guidance."""
    name = adapters.add_teacher(weights.read_lora(teacher.lora, backbone, adapters.shapes)) if teacher.lora else None
    return adapters.field(backbone.velocity, name, teacher.strength)


def start_student(student: Student, seed: int, backbone: Backbone, adapters: Adapters, weights: Weights) -> None:
    """Gives the adapters the LoRA that the student begins as, over its base LoRA. seed: of a fresh one."""
    start = _start(student, seed, backbone, adapters, weights)
    with naming("student.base_lora"):
        base = weights.read_lora(student.base_lora, backbone, adapters.shapes) if student.base_lora else None
        adapters.start_student(start, base)


def _start(student: Student, seed: int, backbone: Backbone, adapters: Adapters, weights: Weights) -> Lora:
    if student.start != "fresh":
        with naming("student.start"):
            return weights.read_lora(student.start, backbone, adapters.shapes)
    generator = torch.Generator().manual_seed(seed)
    targets = student.targets or backbone.default_targets
    with naming("student.targets"):
        return fresh_lora(adapters.shapes, student.rank, student.alpha or student.rank, targets, generator)
