"""A MODEL, CLIP and VAE that ComfyUI has loaded, as the source of a run's base model, teachers and LoRAs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import comfyui_version
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP, VAE
from torch import Tensor, nn

from ...danceopd_core.algorithm.fields import Conditioning
from ...danceopd_core.errors import InputError, naming
from ...danceopd_core.models.backbone import Backbone
from ...danceopd_core.recipe.file_names import LIVE, is_live
from ...danceopd_core.recipe.schema import Recipe
from ...danceopd_core.runs.plans.sources import LiveModel, ModelFacts, ModelSource
from ...danceopd_core.shapes import locate
from ...danceopd_core.weights.adapters import Adapters
from ...danceopd_core.weights.linear_like import linear_shapes
from ...danceopd_core.weights.lora import Lora, Shapes
from ...danceopd_core.weights.lora_io import write_lora
from . import opening, schedules
from .backbone import NativeBackbone, opened
from .checkpointing import enable_checkpointing
from .latents import LatentSpace, check_vae, latent_space
from .lora_names import PREFIX, patched, read_native_lora
from .memory import reference_area, training_memory
from .stacking import loras_beyond, stacked


@dataclass(frozen=True, eq=False)
class NativeModel:
    """What a node was given. digest: of the upstream part of the workflow, for the run's identity. files: that its
    loaders name."""

    patcher: ModelPatcher
    clip: CLIP
    vae: VAE
    digest: str
    scheduler: str = schedules.DEFAULT
    edit: str = "auto"
    files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{LIVE}{opening.title(self.patcher.model)}:{self.digest}"

    @property
    def space(self) -> LatentSpace:
        sampling = self.patcher.get_model_object("model_sampling")
        return latent_space(self.patcher.model, sampling, opening.title(self.patcher.model))

    @property
    def dtype(self) -> str:
        """Of the network's inputs, as recipes write it."""
        return str(self.patcher.model.get_dtype_inference()).removeprefix("torch.")

    def check(self) -> None:
        """InputError, naming an input, for what can be seen before a run: a MODEL that cannot be trained, or the VAE of
        another one."""
        with naming("model"):
            opening.check_flow(self.patcher)
            opening.check_trainable(self.patcher)
        with naming("vae"):
            check_vae(self.space, self.vae)

    def with_lora(self, path: Path) -> ModelPatcher:
        """The MODEL given, with a LoRA file on it as by the stock loader; the weights are shared."""
        return patched(self.patcher, str(path))

    def carries(self, teacher: LiveModel) -> bool:
        return bool(loras_beyond(cast(NativeTeacher, teacher).patcher, self.patcher))

    def stack(self, teachers: Sequence[LiveModel], files: Sequence[tuple[str, float]]) -> NativeTeacher:
        """Files as the stock loader puts them on a MODEL."""
        parts = [loras_beyond(cast(NativeTeacher, teacher).patcher, self.patcher) for teacher in teachers]
        parts += [loras_beyond(patched(self.patcher, name, strength), self.patcher) for name, strength in files]
        told = repr([*(teacher.name for teacher in teachers), *files]).encode()
        return NativeTeacher(stacked(self.patcher, parts), hashlib.sha256(told).hexdigest()[: len(self.digest)])

    def source(self, teachers: Mapping[str, LiveModel], others: Mapping[str, ModelSource]) -> NativeSource:
        weights = NativeWeights({name: cast(NativeTeacher, live) for name, live in teachers.items()})
        return NativeSource(self, weights, others)


SHAPES_SIDE = 512
"""Pixels of the longest side for which the embedded model has positions over a diffusers folder."""


@dataclass(frozen=True, eq=False)
class NativeTeacher:
    """A MODEL that teaches as it stands, with the patches on it. digest, files: as of `NativeModel`."""

    patcher: ModelPatcher
    digest: str
    files: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{LIVE}{opening.title(self.patcher.model)}:{self.digest}"

    def check(self, base: NativeModel) -> None:
        """InputError, naming the input, if it cannot be a teacher over this base."""
        with naming("model"):
            opening.check_flow(self.patcher)
            _check_same(self.patcher, base.patcher)

    def source(self, teachers: Mapping[str, LiveModel], others: Mapping[str, ModelSource]) -> NativeSource:
        raise TypeError("a teacher has no encoders: it is used over a base model")


@dataclass(frozen=True, eq=False)
class NativeWeights:
    """LoRAs in every layout that ComfyUI reads, and MODELs as full checkpoints."""

    teachers: Mapping[str, NativeTeacher]

    def adapters(self, backbone: Backbone) -> Adapters:
        native = cast(NativeBackbone, backbone)
        return Adapters(native.network, torch.device(native.patcher.load_device), native.model.get_dtype_inference())

    def read_lora(self, name: str, backbone: Backbone, shapes: Shapes) -> Lora:
        return read_native_lora(str(locate(name)), cast(NativeBackbone, backbone).model)

    def write_lora(self, path: Path, lora: Lora, metadata: Mapping[str, str]) -> None:
        write_lora(path, lora, metadata, prefix=PREFIX)

    def checkpoint(self, name: str, backbone: Backbone, in_host_memory: bool = False) -> NativeBackbone:
        base = cast(NativeBackbone, backbone)
        if not is_live(name) or name not in self.teachers:
            raise InputError(
                f"checkpoint: {name} is a file, but the model comes from ComfyUI: load it with Load Diffusion Model, "
                "and use Field from MODEL"
            )
        patcher = self.teachers[name].patcher
        opening.check_flow(patcher)
        _check_same(patcher, base.patcher)
        # Without gradients it may stay as ComfyUI has it, inference tensors and streamed weights included.
        return replace(base, patcher=patcher, model=patcher.model, resident=False)

    def enable_checkpointing(self, network: nn.Module) -> None:
        enable_checkpointing(network)


@dataclass(frozen=True, eq=False)
class NativeSource:
    """The base model of a run over a MODEL."""

    model: NativeModel
    weights: NativeWeights
    others: Mapping[str, ModelSource] = field(default_factory=dict)

    def facts(self) -> ModelFacts:
        longest = SHAPES_SIDE if self.model.space.title == "Shapes" else math.inf
        return ModelFacts((), self.model.space.size_multiple, self.model.space.title, longest_side=longest)

    def encoding_identity(self) -> str:
        return f"{comfyui_version.__version__} {self.model.digest} {self.model.edit}"

    def notes(self) -> list[str]:
        lines = ["This run is over models of ComfyUI: `danceopd train` of this file tells how to queue it again."]
        for live in (self.model, *self.weights.teachers.values()):
            if live.files:
                lines += [f"{live.name} was loaded from:", *(f"- {file}" for file in live.files)]
        return lines

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        sampling = self.model.patcher.get_model_object("model_sampling")
        return schedules.model_sigmas(sampling, self.model.scheduler, steps, width, height)

    def few_steps(self) -> int | None:
        """A MODEL does not say it."""
        return None

    def open(self, dtype: torch.dtype, device: torch.device | str) -> NativeBackbone:
        """dtype, device: ComfyUI has chosen both when it loaded the MODEL."""
        with naming("model"):
            return opened(self.model.patcher, self.model.clip, self.model.vae, self.model.scheduler, self.model.edit)

    def open_encoders(self, dtype: torch.dtype, device: torch.device | str) -> NativeBackbone:
        """All of it: ComfyUI's memory manager moves the network away while it encodes."""
        return self.open(dtype, device)

    def load_network(self, backbone: Backbone, dtype: torch.dtype, device: torch.device | str) -> NativeBackbone:
        return cast(NativeBackbone, backbone)

    def quantised(self, kind: str | None) -> NativeSource:
        """A MODEL is as its loader loaded it."""
        return self

    def make_room(self, backbone: Backbone, recipe: Recipe, trained: int, samples: Sequence[Conditioning]) -> str:
        native = cast(NativeBackbone, backbone)
        needed = training_memory(
            native.patcher,
            trained,
            bool(recipe.optimizer.ema),
            recipe.batch,
            native.latent_shape(recipe.width, recipe.height),
            reference_area(samples),
            recipe.gradient_checkpointing,
        )
        native.room.bytes = needed.total
        opening.load_fully(native.patcher, needed.total)
        native.patcher.pre_run()
        return needed.text(native.patcher)


def _check_same(teacher: ModelPatcher, base: ModelPatcher) -> None:
    """InputError if a teacher has another architecture or latent space than the base: they share conditioning too."""

    def kind(patcher: ModelPatcher) -> Any:
        latent_format = patcher.model.latent_format
        return type(patcher.model).__name__, type(latent_format).__name__, latent_format.latent_channels

    if kind(teacher) != kind(base):
        raise InputError(
            f"the MODEL of the field is a {opening.title(teacher.model)} and the flow model a "
            f"{opening.title(base.model)}: a teacher needs the student's architecture and latent space"
        )
    theirs, ours = (linear_shapes(patcher.model.diffusion_model) for patcher in (teacher, base))
    if odd := sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        raise InputError(
            f"the MODEL of the field and the flow model are both {opening.title(base.model)}, but of different sizes "
            f"({len(odd)} layers differ, such as {odd[0]}): a teacher needs the student's architecture"
        )
