"""Estimates the memory of a run, weights and peak, from configurations, file headers and a walk of shapes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ...algorithm.optimizers import STATE_BYTES
from ...models.backbone import COMPONENTS
from ...models.hub import configuration, is_hub_id
from ...models.quantise import dequantised_bytes, network_bytes
from ...models.registry import absent, default_targets, empty_module_of, family_of
from ...recipe.schema import Recipe
from ...shapes import locate
from ...weights.linear_like import linear_shapes
from ...weights.lora import Lora, Shapes, fresh_lora
from ...weights.lora_io import weights_file
from ...weights.safetensors_io import open_header
from ..plans.opening import DTYPES
from ..plans.planning import edits
from . import walk_inputs
from .walk_inputs import Pass, shapeless_lora

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes. student: its float32 weights, gradients, Adam's two moments, and its average if the recipe keeps one.

    checkpoints: the full-checkpoint teachers on the device, as if they shared nothing with the base; waiting: those in
    host memory. encoders: text encoders and VAE, which leave the device before the transformer is loaded. others:
    networks of the models that teachers have for themselves. working: what an update holds beside all these at its
    peak, activations or the copies that Adam's step makes. gradients: those of the student. encoding, decoding: the
    most that the VAE holds for one picture beside its weights.
    """

    base: int
    loras: int
    student: int
    checkpoints: int
    waiting: int
    encoders: int
    others: int = 0
    working: int = 0
    gradients: int = 0
    encoding: int = 0
    decoding: int = 0

    @property
    def device(self) -> int:
        """On the device while it trains, without activations."""
        return self.base + self.loras + self.student + self.checkpoints + self.others

    @property
    def update(self) -> int:
        """The most during an update."""
        return self.device + self.working

    @property
    def opening(self) -> int:
        """The most while prompts and pictures are encoded, before the transformer is loaded."""
        return self.encoders + self.encoding

    @property
    def validation(self) -> int:
        """The most while a picture is decoded on the device, between updates."""
        return self.device - self.gradients + self.decoding

    @property
    def peak(self) -> int:
        """The most of all, decoding left out: it takes less room where there is less."""
        return max(self.update, self.opening)

    def lines(self) -> list[str]:
        parts = {
            "base": self.base,
            "LoRA teachers": self.loras,
            "student, its gradient and Adam's moments": self.student,
            "full checkpoints": self.checkpoints,
            "models of teachers": self.others,
            "on the device in training, without activations": self.device,
            "activations, or the copies of Adam's step": self.working,
            "peak of an update": self.update,
            "peak while prompts are encoded, before the transformer is loaded": self.opening,
            "peak while a picture is decoded whole on the device": self.validation,
            "full checkpoints offloaded to host memory": self.waiting,
        }
        shown = {name: size for name, size in parts.items() if size or name != "models of teachers"}
        return [f"{size / GIB:8.2f} GiB  {name}" for name, size in shown.items()]


@dataclass(frozen=True, eq=False)
class Estimate:
    """What the memory of a run follows from; `memory` varies the settings that change it.

    network, vae: on the meta device. trained: weights of the student's LoRA. loras: weights of the teachers' LoRAs, by
    bytes each. encoders: weights of the text encoders and VAEs. copies: full-checkpoint teachers. others: networks of
    the models that teachers have for themselves.
    """

    recipe: Recipe
    of: Pass
    vae: nn.Module
    lora: Lora
    loras: int
    encoders: int
    copies: int
    others: Sequence[nn.Module] = ()

    @cached_property
    def trained(self) -> int:
        return sum(factor.numel() for factors in (self.lora.down, self.lora.up) for factor in factors.values())

    @cached_property
    def checkpointed(self) -> int:
        """Bytes of one sample's forward and backward pass with gradient checkpointing."""
        return walk_inputs.update_bytes(self.of, self.lora, checkpointing=True)

    @cached_property
    def kept(self) -> int:
        """The same without gradient checkpointing."""
        return walk_inputs.update_bytes(self.of, self.lora, checkpointing=False)

    @cached_property
    def encoding(self) -> int:
        return walk_inputs.encode_bytes(self.vae, self.of)

    @cached_property
    def decoding(self) -> int:
        return walk_inputs.decode_bytes(self.vae, self.of)

    def memory(self, recipe: Recipe, checkpointing: bool, batch: int) -> Memory:
        """recipe: for `quantise`, `offload`, `dtype` and the optimizer; otherwise that of the estimate."""
        itemsize = BYTES[recipe.dtype]
        base = network_bytes(self.of.network, itemsize, recipe.quantise)
        inside = min(self.copies, 1) if recipe.offload else self.copies
        gradients = 4 * self.trained
        beside = max((self.checkpointed if checkpointing else self.kept) - gradients, 0)
        weights = dequantised_bytes(self.of.network, itemsize, recipe.quantise, checkpointing)
        return Memory(
            base=base,
            loras=self.loras,
            student=trained_bytes(self.trained, bool(recipe.optimizer.ema), recipe.optimizer.name),
            checkpoints=inside * base,
            waiting=self.copies * base if recipe.offload else 0,
            encoders=itemsize * self.encoders,
            others=sum(network_bytes(other, itemsize, None) for other in self.others),
            # Adam's step makes a copy of the weights for the square roots of the second moments.
            working=max(batch * beside + weights, gradients),
            gradients=gradients,
            encoding=self.encoding if self.of.edit or recipe.method == "offpolicy" else 0,
            decoding=self.decoding,
        )


def planned_memory(recipe: Recipe, batch: int | None = None) -> Memory:
    """The memory of the recipe; InputError for files that are missing or of another kind.

    Unless the recipe says otherwise, gradients are checkpointed as on a GPU. batch: samples of a pass; None: the
    recipe's.
    """
    return estimate(recipe).memory(recipe, checkpoints_by_default(recipe), batch or recipe.batch)


def checkpoints_by_default(recipe: Recipe, device: str | None = None) -> bool:
    """Whether a run of this recipe checkpoints gradients. device: its type; None: a GPU unless the recipe says cpu."""
    if recipe.gradient_checkpointing is not None:
        return recipe.gradient_checkpointing
    return recipe.memory == "auto" and (device or recipe.device) != "cpu"


def estimate(recipe: Recipe) -> Estimate:
    """InputError for files that are missing or of another kind. Of a Hugging Face id, configurations are downloaded."""
    teachers = recipe.teachers.values()
    names = list(dict.fromkeys([recipe.model, *filter(None, (teacher.model for teacher in teachers))]))
    folders = [configuration(name) if is_hub_id(name) else locate(name) for name in names]
    indices = [family_of(folder)[1] for folder in folders]
    dtype = DTYPES[recipe.dtype]
    network, *others = (empty_module_of(folder, "transformer", dtype) for folder in folders)
    vae = empty_module_of(folders[0], "vae", dtype)
    factor = walk_inputs.compression(indices[0]["vae"][1], dict(vae.config))  # type: ignore[arg-type]
    of = Pass(
        indices[0]["_class_name"],
        network,
        walk_inputs.latent_channels(vae),
        factor,
        dtype,
        recipe.width,
        recipe.height,
        edits(recipe),
    )
    files = [locate(teacher.lora) for teacher in teachers if teacher.lora]
    under = [locate(recipe.student.base_lora)] if recipe.student.base_lora else []
    return Estimate(
        recipe,
        of,
        vae,
        _student(recipe, network, indices[0]),
        BYTES[recipe.dtype] * _all(map(weights_file, files)) + 4 * _all(map(weights_file, under)),
        _encoders(recipe, folders, indices),
        sum(teacher.checkpoint is not None for teacher in teachers),
        others,
    )


def trained_bytes(elements: int, average: bool = False, optimizer: str = "adamw") -> int:
    """Bytes of a student with this many weights, in training: float32, but for the state of the optimiser."""
    return round((4 * (2 + average) + STATE_BYTES[optimizer]) * elements)


def lora_elements(shapes: Shapes, targets: Sequence[str]) -> int:
    """The weights of a LoRA of rank 1 on these targets."""
    layers = fresh_lora(shapes, 1, 1, targets, torch.Generator()).down
    return sum(sum(shapes[module]) for module in layers)


def _student(recipe: Recipe, network: nn.Module, index: Mapping[str, Any]) -> Lora:
    """The student on the meta device. One that goes on from a file counts as a fresh one with as many weights."""
    student, shapes = recipe.student, linear_shapes(network)
    targets = student.targets or default_targets(index["_class_name"])
    if student.start == "fresh":
        return shapeless_lora(shapes, student.rank, targets)
    rank = _all([weights_file(locate(student.start))]) / lora_elements(shapes, targets)
    return shapeless_lora(shapes, max(1, round(rank)), targets)


def _encoders(recipe: Recipe, folders: Sequence[Path], indices: Sequence[Mapping[str, Any]]) -> int:
    """Weights of the text encoders and VAEs: by their files if they are here, otherwise by their configurations."""
    total = 0
    for number, (folder, index) in enumerate(zip(folders, indices, strict=True)):
        for part in index:
            if part not in COMPONENTS or part == "transformer" or absent(index, part):
                continue
            replaced = recipe.components.get(part) if number == 0 else None
            files = [Path(replaced)] if replaced else sorted((folder / part).glob("*.safetensors"))
            total += _all(files) or sum(p.numel() for p in empty_module_of(folder, part).parameters())
    return total


def _all(files: Iterable[Path]) -> int:
    return sum(map(_elements, files))


def _elements(file: Path) -> int:
    with open_header(file) as handle:
        return sum(math.prod(handle.get_slice(key).get_shape()) for key in handle.keys())  # noqa: SIM118 (no dict)
