"""What the nodes that sample make of their inputs: the settings of a sampling, and the student as a field's spec."""

from __future__ import annotations

from ..danceopd_core.errors import InputError, refuse
from ..danceopd_core.recipe.graph import ModelSpec
from ..danceopd_core.recipe.schema import Teacher
from ._comfy import chosen, device_name, lora_choices, lora_file
from .run_checks import both_loras


def sampling_settings(model: ModelSpec, steps: int, seed: int, width: int, height: int):
    from ..danceopd_core.runs.pictures.field_sampling import SamplingSettings
    from ..danceopd_core.runs.plans.opening import size_or_default

    width, height = size_or_default(model.folder, width, height)
    check_size(model, width, height)
    return SamplingSettings(steps, width, height, seed, device_name())


def check_size(model: ModelSpec, width: int, height: int) -> None:
    """InputError for a size that the model does not have, before anything is rendered or loaded."""
    from ..danceopd_core.runs.plans.preflight import size_faults
    from ..danceopd_core.runs.plans.sources import graph_source

    refuse("the picture", size_faults(graph_source(model, []).facts(), width, height))


def student_spec(lora, lora_name: str, strength: float, guidance: float = 1.0, negative: str = "") -> Teacher:
    """The student as a frozen field's spec."""
    file = chosen(lora_choices(), lora_name, "lora_name")
    if lora is not None and file:
        raise InputError(both_loras(lora_name, lora))
    if lora is not None:
        file = str(lora_file(lora))
    return Teacher(lora=file, strength=strength if file else 1.0, guidance=guidance, negative=negative)
