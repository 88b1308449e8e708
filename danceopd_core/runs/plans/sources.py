"""Where the base model and the weights of a run come from: files, or what the program around the run has loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ...algorithm.fields import Conditioning
from ...errors import Fault, InputError
from ...models.backbone import Backbone
from ...models.few_steps import own_steps
from ...models.hub import commit_of, fetched, is_hub_id, split_id
from ...models.registry import family_of, folder_faults, load_network, open_backbone
from ...models.sigma_schedule import folder_sigmas, longest_side, size_multiple
from ...recipe.file_names import is_live
from ...recipe.graph import FieldSpec, ModelSpec
from ...recipe.schema import Recipe
from ...shapes import ONLY_NATIVE, is_native, locate
from ...weights.adapters import Adapters
from ...weights.full_checkpoints import load_full_checkpoint, weight_files
from ...weights.lora import Lora, Shapes
from ...weights.lora_io import read_lora, write_lora
from ...weights.safetensors_io import open_header
from .encoding_identity import folder_identity


class ModelFacts(NamedTuple):
    """What is known of a model before it is opened: its faults, or the number that widths and heights are multiples of,
    the name of its pipeline, the largest number of source images of a prompt, and the longest side of a picture in
    pixels."""

    faults: tuple[Fault, ...] = ()
    size_multiple: int = 1
    pipeline: str = ""
    sources: float = math.inf
    longest_side: float = math.inf


class Weights(Protocol):
    """Reads and writes weights in the world of one kind of backbone."""

    def adapters(self, backbone: Backbone) -> Adapters:
        """Adapters for the backbone's network, without any yet."""
        ...

    def read_lora(self, name: str, backbone: Backbone, shapes: Shapes) -> Lora:
        """The LoRA that a recipe's name means, by the names of the backbone's linear layers, which have `shapes`."""
        ...

    def write_lora(self, path: Path, lora: Lora, metadata: Mapping[str, str]) -> None:
        """Writes a LoRA file that ComfyUI's stock loader takes."""
        ...

    def checkpoint(self, name: str, backbone: Backbone, in_host_memory: bool = False) -> Backbone:
        """The backbone with the full weights that a recipe's name means.

        in_host_memory: weights that differ from the backbone's stay there, for a `TeacherOffloader`, if they can.
        """
        ...

    def enable_checkpointing(self, network: nn.Module) -> None:
        """Recomputes activations in the backward pass from now on."""
        ...


class ModelSource(Protocol):
    """The base model of a run."""

    @property
    def weights(self) -> Weights: ...

    @property
    def others(self) -> Mapping[str, ModelSource]:
        """The sources of models that teachers have for themselves, by name, where the name alone does not say it."""
        ...

    def facts(self) -> ModelFacts: ...

    def encoding_identity(self) -> str | None:
        """What encodings by this model depend on, beside its type and device; None if that is not known."""
        ...

    def notes(self) -> list[str]:
        """What the recipe's names of live models stand for, as lines of comment in the run's recipe file."""
        ...

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        """What `Backbone.sigmas` will give, before the model is opened."""
        ...

    def few_steps(self) -> int | None:
        """The number of steps that the model was distilled to; None: it was not, or that is not known."""
        ...

    def open(self, dtype: torch.dtype, device: torch.device | str) -> Backbone: ...

    def open_encoders(self, dtype: torch.dtype, device: torch.device | str) -> Backbone:
        """The backbone without the weights of its network where that is possible; they come with `load_network`."""
        ...

    def load_network(self, backbone: Backbone, dtype: torch.dtype, device: torch.device | str) -> Backbone:
        """What `open_encoders` gave, whole."""
        ...

    def quantised(self, kind: str | None) -> ModelSource:
        """The same model with its network quantised, where that can be chosen."""
        ...

    def make_room(self, backbone: Backbone, recipe: Recipe, trained: int, samples: Sequence[Conditioning]) -> str:
        """Frees what a training will need beside the weights; returns a line of progress, or nothing.

        trained: weights of the student. samples: of the buckets.
        """
        ...


class LiveModel(Protocol):
    """A model that the program around a run has loaded. name: what recipes call it; starts with `file_names.LIVE`."""

    @property
    def name(self) -> str: ...

    def source(self, teachers: Mapping[str, LiveModel], others: Mapping[str, ModelSource]) -> ModelSource:
        """The source of a run over this model. teachers: the live models that its teachers name as checkpoints.
        others: of the models that its teachers have for themselves."""
        ...


class LiveBase(LiveModel, Protocol):
    """One that students are trained on."""

    def carries(self, teacher: LiveModel) -> bool:
        """Whether a teacher is this very model with LoRAs on it, and nothing else's weights."""
        ...

    def stack(self, teachers: Sequence[LiveModel], files: Sequence[tuple[str, float]]) -> LiveModel:
        """This model with the LoRAs of such teachers on it at once, and LoRA files at their strengths."""
        ...


@dataclass(frozen=True)
class FileWeights:
    """Files by path, and parts of the embedded model."""

    def adapters(self, backbone: Backbone) -> Adapters:
        return Adapters(backbone.network)

    def read_lora(self, name: str, backbone: Backbone, shapes: Shapes) -> Lora:
        if is_native(name):
            raise InputError(f"{name} {ONLY_NATIVE}")
        return read_lora(locate(name), shapes)

    def write_lora(self, path: Path, lora: Lora, metadata: Mapping[str, str]) -> None:
        write_lora(path, lora, metadata)

    def checkpoint(self, name: str, backbone: Backbone, in_host_memory: bool = False) -> Backbone:
        place = "cpu" if in_host_memory else None
        return backbone.with_network(load_full_checkpoint(backbone.network, locate(name), place))

    def enable_checkpointing(self, network: nn.Module) -> None:
        network.enable_gradient_checkpointing()  # type: ignore[operator]


@dataclass(frozen=True)
class FolderSource:
    """A diffusers pipeline folder, "shapes", or a Hugging Face id, with single files in place of some of its parts."""

    name: str
    components: Mapping[str, str] = field(default_factory=dict)
    quantise: str | None = None
    weights: Weights = FileWeights()
    others: Mapping[str, ModelSource] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The local folder; a Hugging Face id is downloaded if it is not here yet."""
        return fetched(self.name, self.components) if is_hub_id(self.name) else locate(self.name)

    def facts(self) -> ModelFacts:
        if is_live(self.name):
            return ModelFacts((Fault("model", f"{self.name} was a MODEL of ComfyUI: queue the run's workflow there"),))
        if is_hub_id(self.name):
            return ModelFacts()  # known once it is downloaded
        try:
            folder = locate(self.name)
            family, index = family_of(folder)
            pipeline = index["_class_name"]
            faults = tuple(Fault("model", line) for line in folder_faults(folder, self._files))
            if faults:
                return ModelFacts(faults)
            return ModelFacts((), size_multiple(folder), pipeline, family.pipelines[pipeline], longest_side(folder))
        except InputError as error:
            return ModelFacts((Fault("model", str(error)),))

    def encoding_identity(self) -> str | None:
        return folder_identity(self.folder, {part: Path(file) for part, file in self.components.items()})

    def notes(self) -> list[str]:
        """The commit that a Hugging Face id stood for: the id alone may stand for another one tomorrow."""
        commit = commit_of(self.folder) if is_hub_id(self.name) else ""
        return [f"model: {split_id(self.name)[0]}@{commit} is this very model"] if commit else []

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        return folder_sigmas(self.folder, steps, width, height)

    def few_steps(self) -> int | None:
        return own_steps(self.folder)

    def open(self, dtype: torch.dtype, device: torch.device | str) -> Backbone:
        return open_backbone(self.folder, dtype, device, self._files, self.quantise)

    @property
    def _files(self) -> dict[str, Path]:
        return {part: Path(file) for part, file in self.components.items()}

    def open_encoders(self, dtype: torch.dtype, device: torch.device | str) -> Backbone:
        if "transformer" not in self.components:  # found now instead of after all prompts are encoded
            for file in weight_files(self.folder / "transformer"):
                with open_header(file):
                    pass
        return open_backbone(self.folder, dtype, device, self._files, self.quantise, empty_network=True)

    def load_network(self, backbone: Backbone, dtype: torch.dtype, device: torch.device | str) -> Backbone:
        return load_network(backbone, self.folder, dtype, device, self._files, self.quantise)

    def quantised(self, kind: str | None) -> FolderSource:
        return replace(self, quantise=kind)

    def make_room(self, backbone: Backbone, recipe: Recipe, trained: int, samples: Sequence[Conditioning]) -> str:
        """Nothing else is on the device; `danceopd memory` estimates such a run beforehand."""
        return ""


def recipe_source(recipe: Recipe) -> ModelSource:
    """The source that a recipe alone describes."""
    return FolderSource(recipe.model, recipe.components, recipe.quantise)


def other_source(source: ModelSource, name: str) -> ModelSource:
    """The source of a model that a teacher has for itself. source: of the run's model."""
    return source.others[name] if name in source.others else FolderSource(name)


def graph_source(model: ModelSpec, fields: Sequence[FieldSpec]) -> ModelSource:
    """The source of the graph's model, for these fields over it."""
    live = {live.name: live for spec in fields for live in spec.live}
    others = {other.folder: _spec_source(other, live, {}) for spec in fields for other in spec.others}
    return _spec_source(model, live, others)


def _spec_source(model: ModelSpec, live: Mapping[str, LiveModel], others: Mapping[str, ModelSource]) -> ModelSource:
    if model.live is None:
        return FolderSource(model.folder, model.components, model.quantise, others=others)
    source: ModelSource = model.live.source(live, others)
    return source
