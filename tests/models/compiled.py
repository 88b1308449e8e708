"""A tiny network twice, as it is and with compiled blocks, with the same adapters."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch._dynamo.utils import counters

from danceopd_core.algorithm.fields import VelocityField
from danceopd_core.models.compiling import compile_blocks
from danceopd_core.weights.adapters import STUDENT, Adapters

from ..loras import random_lora


class Fields(NamedTuple):
    """teachers: of two ranks and targets, and the bare base."""

    adapters: Adapters
    teachers: list[VelocityField]
    student: VelocityField


def graphs() -> int:
    """Codes that have been compiled."""
    return counters["stats"]["unique_graphs"]


def pair(backbone, backend: str, checkpointing: bool = False, device: str = "cpu") -> tuple[Fields, Fields]:
    """Eager and compiled fields; none of what was compiled before is used. device: where the backbone is."""
    torch._dynamo.reset()
    counters.clear()
    return _fields(backbone, None, checkpointing, device), _fields(backbone, backend, checkpointing, device)


def _fields(backbone, backend: str | None, checkpointing: bool, device: str) -> Fields:
    backbone = backbone.with_network(copy.deepcopy(backbone.network))
    adapters, targets = Adapters(backbone.network), backbone.default_targets
    loras = (
        random_lora(adapters.shapes, 4, seed=1, targets=targets),
        random_lora(adapters.shapes, 3, seed=2, targets=targets[:2], scale=0.5),
    )
    names = [adapters.add_teacher(lora) for lora in loras]
    under = random_lora(adapters.shapes, 2, seed=4, targets=targets[1:])
    adapters.start_student(random_lora(adapters.shapes, 5, seed=3, targets=targets), under)
    if backend is not None:
        adapters.as_data(torch.float32, device)
        assert compile_blocks(backbone.network, backend) >= 1
    if checkpointing:
        backbone.network.enable_gradient_checkpointing()
    teachers = [adapters.field(backbone.velocity, name) for name in (*names, None)]
    return Fields(adapters, teachers, adapters.field(backbone.velocity, STUDENT))


def answers(fields: Fields, x, sigma, cond) -> tuple[torch.Tensor, torch.Tensor]:
    """The velocities of the teachers and the student, and the gradient of a loss of the student, all flat."""
    with torch.no_grad():
        velocities = [field(x, sigma, cond) for field in (*fields.teachers, fields.student)]
    for factor in fields.adapters.parameters():
        factor.grad = None
    fields.student(x, sigma, cond).square().mean().backward()
    # What does not reach the output has no gradient, or by a compiler one of zeros.
    factors = fields.adapters.parameters()
    gradients = [(torch.zeros_like(factor) if factor.grad is None else factor.grad).flatten() for factor in factors]
    return torch.stack(velocities).flatten(), torch.cat(gradients)
