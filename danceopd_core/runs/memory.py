"""Estimates the memory of a run's weights from configurations and file headers, without reading any weight."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..models.quantise import network_bytes
from ..models.registry import default_targets, empty_network, family_of
from ..recipe.schema import Recipe
from ..shapes import locate
from ..weights.linear_like import linear_shapes
from ..weights.lora import Shapes, fresh_lora
from ..weights.lora_io import weights_file
from ..weights.safetensors_io import open_safetensors

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Memory:
    """Bytes. student: its float32 weights, gradients, Adam's two moments, and its average if the recipe keeps one.

    checkpoints: the full-checkpoint teachers on the device, as if they shared nothing with the base; waiting: those
    in host memory. encoders: text encoders and VAE, which leave the device before the training begins. others:
    networks of the models that teachers have for themselves.
    """

    base: int
    loras: int
    student: int
    checkpoints: int
    waiting: int
    encoders: int
    others: int = 0

    @property
    def device(self) -> int:
        """On the device while it trains, without activations."""
        return self.base + self.loras + self.student + self.checkpoints + self.others

    def lines(self) -> list[str]:
        parts = {
            "base": self.base,
            "LoRA teachers": self.loras,
            "student, its gradient and Adam's moments": self.student,
            "full checkpoints": self.checkpoints,
            "models of teachers": self.others,
            "on the device in training, without activations": self.device,
            "on the device before training, with text encoders and VAE": self.device + self.encoders,
            "full checkpoints offloaded to host memory": self.waiting,
        }
        shown = {name: size for name, size in parts.items() if size or name != "models of teachers"}
        return [f"{size / 2**30:8.2f} GiB  {name}" for name, size in shown.items()]


def planned_memory(recipe: Recipe) -> Memory:
    """The memory of the recipe's weights; InputError for files that are missing or of another kind."""
    teachers, bytes_per_weight = recipe.teachers.values(), BYTES[recipe.dtype]
    folders = [locate(name) for name in dict.fromkeys([recipe.model, *filter(None, (t.model for t in teachers))])]
    indices = [family_of(folder)[1] for folder in folders]
    network, *others = map(empty_network, folders)
    base = network_bytes(network, bytes_per_weight, recipe.quantise)
    files = [locate(teacher.lora) for teacher in teachers if teacher.lora]
    copies = sum(teacher.checkpoint is not None for teacher in teachers)
    inside = min(copies, 1) if recipe.offload else copies
    return Memory(
        base=base,
        loras=bytes_per_weight * sum(_elements(weights_file(file)) for file in files),
        student=trained_bytes(_student(recipe, network, indices[0]), bool(recipe.optimizer.ema)),
        checkpoints=inside * base,
        waiting=copies * base if recipe.offload else 0,
        encoders=bytes_per_weight
        * sum(
            _part(folder / part)
            for folder, index in zip(folders, indices, strict=True)
            for part in index
            if part.startswith(("text_encoder", "vae"))
        ),
        others=sum(network_bytes(other, bytes_per_weight, None) for other in others),
    )


def trained_bytes(elements: int, average: bool = False) -> int:
    """Bytes of a student with this many weights, in training: all float32."""
    return 4 * (4 + average) * elements


def _student(recipe: Recipe, network: nn.Module, index: Mapping[str, Any]) -> int:
    student = recipe.student
    if student.start != "fresh":
        return _elements(weights_file(locate(student.start)))
    targets = student.targets or default_targets(index["_class_name"])
    return student.rank * lora_elements(linear_shapes(network), targets)


def lora_elements(shapes: Shapes, targets: Sequence[str]) -> int:
    """The weights of a LoRA of rank 1 on these targets."""
    layers = fresh_lora(shapes, 1, 1, targets, torch.Generator()).down
    return sum(sum(shapes[module]) for module in layers)


def _part(folder: Path) -> int:
    return sum(_elements(file) for file in folder.glob("*.safetensors"))


def _elements(file: Path) -> int:
    with open_safetensors(file) as handle:
        return sum(math.prod(handle.get_slice(key).get_shape()) for key in handle.keys())  # noqa: SIM118 (no dict)
