"""A MODEL, CLIP and VAE of ComfyUI as a Backbone, without a table of families."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import comfy.model_management as management
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher, create_model_options_clone
from comfy.patcher_extension import merge_nested_dicts
from comfy.sd import CLIP, VAE
from torch import Tensor, nn

from ...danceopd_core.algorithm.fields import Conditioning, Sample
from ...danceopd_core.algorithm.flow import per_sample
from ...danceopd_core.listening import one_more
from ...danceopd_core.models.backbone import Sources
from ...danceopd_core.weights.linear_like import linear_shapes
from . import conditioning, conditioning_check, encoding, opening, schedules
from .latents import LatentSpace, check_vae, latent_space
from .memory import Room
from .saved_tensors import differentiable

IN_BLOCK = re.compile(r"\.\d+\.((?:.*\.)?[^.]*\D[^.]*(?:\.\d+)*)$")
"""The name of a layer after the number of the block that it is in."""
CONDITIONERS = re.compile(
    r"adaLN|modulation|_mod\b|_mod\.|\bmod(X|C|CX)\.|norm|embed|guidance|caption|param_generator", re.IGNORECASE
)
"""Linear layers that make scales and gates rather than features, or only prepare a text."""


@dataclass(frozen=True, eq=False)
class NativeBackbone:
    """`patcher` is a MODEL opened for training (`opened`); `model` is its BaseModel or one with other weights.

    resident: all weights stay on the device, as gradients need it; else ComfyUI may stream them.
    """

    patcher: ModelPatcher
    model: BaseModel
    clip: CLIP
    vae: VAE
    space: LatentSpace
    scheduler: str
    edit: encoding.Encode
    resident: bool = True
    room: Room = field(default_factory=Room)

    @property
    def family(self) -> str:
        return self.space.title

    @property
    def network(self) -> nn.Module:
        return self.model.diffusion_model

    @property
    def default_targets(self) -> tuple[str, ...]:
        """The linear layers of the repeated blocks, by their names after the block's number."""
        features = [name for name in linear_shapes(self.network) if not CONDITIONERS.search(name)]
        endings = Counter(match[1] for name in features if (match := IN_BLOCK.search(name)))
        return tuple(sorted(ending for ending, count in endings.items() if count > 1)) or tuple(sorted(endings))

    @property
    def size_multiple(self) -> int:
        return self.space.size_multiple

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        """(x - denoised) / sigma; a batch is split where ComfyUI itself would not join its samples."""
        self._resident()
        conds = [conditioning.model_conds(self.model, s, x[row : row + 1]) for row, s in enumerate(cond.samples)]
        groups = conditioning.grouped(conds)
        try:
            with layers_apart(), differentiable() if torch.is_grad_enabled() else nullcontext():
                answers = [self._denoised(x[rows], sigma[rows], [conds[row] for row in rows]) for rows in groups]
        finally:
            if not self.resident:  # it is the MODEL of the workflow: nothing of ours stays on it
                self.patcher.cleanup()
        order = torch.tensor([row for rows in groups for row in rows], device=x.device).argsort()
        return (x - torch.cat(answers)[order]) / per_sample(sigma, x)

    def _denoised(self, x: Tensor, sigma: Tensor, conds: Sequence[conditioning.Conds]) -> Tensor:
        forget_prompts(self.network)
        scale = self.space.noise_scale
        arguments = {**conditioning.batched(conds), "transformer_options": self._options(sigma)}
        wrapper = self.patcher.model_options.get("model_function_wrapper")
        if wrapper is None:
            return self.model.apply_model(x * scale, sigma, **arguments) / scale
        call = {"input": x * scale, "timestep": sigma, "c": arguments, "cond_or_uncond": [0] * len(x)}
        return wrapper(self.model.apply_model, call) / scale

    def _options(self, sigma: Tensor) -> dict[str, Any]:
        """The MODEL's patches and wrappers, and what the samplers say of the batch."""
        options = create_model_options_clone(self.patcher.model_options)["transformer_options"]
        for kind, own in (("wrappers", self.patcher.wrappers), ("callbacks", self.patcher.callbacks)):
            options[kind] = merge_nested_dicts(options.get(kind, {}), own)
        rows = len(sigma)
        return {**options, "cond_or_uncond": [0] * rows, "uuids": [uuid4() for _ in range(rows)], "sigmas": sigma}

    def _resident(self) -> None:
        """Brings the weights back if something else that was loaded made ComfyUI move them away."""
        if not self.resident:
            management.load_models_gpu([self.patcher], memory_required=self.room.bytes)
            self.patcher.pre_run()
        elif opening.misplaced(self.patcher):
            opening.load_fully(self.patcher, self.room.bytes)
            self.patcher.pre_run()

    @torch.no_grad()
    def encode(
        self, prompts: Sequence[str], sources: Sources | None = None, negatives: Sequence[str] = ()
    ) -> Conditioning:
        pictures = [tuple(given or ()) for given in (sources or [None] * len(prompts))]
        if len(pictures) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts with {len(pictures)} entries of source pictures")
        texts: dict[str, Sample] = {}

        def one(prompt: str, given: tuple[Tensor, ...]) -> Sample:
            if given:
                return encoding.encoded(self.clip, self.vae, self.edit, prompt, given)
            if prompt not in texts:
                texts[prompt] = encoding.encoded(self.clip, self.vae, self.edit, prompt, ())
            return texts[prompt]

        samples = []
        for prompt, given in zip(prompts, pictures, strict=True):
            nulls = {negative: one(negative, given) for negative in negatives}
            samples.append(Sample(one(prompt, given).values, nulls))
            one_more()
        return Conditioning(tuple(samples))

    def check(self, cond: Conditioning, width: int, height: int) -> None:
        x = torch.zeros(1, *self.latent_shape(width, height), device=self.patcher.load_device)
        conditioning_check.check(self.family, self.network, self.velocity, cond, x)

    def prompt_embeddings(self, cond: Conditioning) -> Tensor:
        return torch.stack([_embedding(sample.values) for sample in cond.samples])

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        self.latent_shape(images.shape[2], images.shape[1])
        return self.space.encode(self.vae, images)

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        return self.space.decode(self.vae, x)

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        return self.space.shape(width, height)

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        sampling = self.patcher.get_model_object("model_sampling")
        return schedules.model_sigmas(sampling, self.scheduler, steps, width, height)

    def with_network(self, network: nn.Module) -> NativeBackbone:
        model = copy.copy(self.model)
        model._modules = {**self.model._modules, "diffusion_model": network}
        return replace(self, model=model)

    def to(self, device: torch.device | str) -> NativeBackbone:
        """Loads the network through ComfyUI's memory manager, which moves CLIP and VAE itself when they are used.

        ValueError for another device than ComfyUI's own.
        """
        if torch.device(device).type != torch.device(self.patcher.load_device).type:
            raise ValueError(
                f"the MODEL runs on {self.patcher.load_device}, not on {device}: ComfyUI chooses its device"
            )
        opening.load_fully(self.patcher)
        return self

    def offload_encoders(self, device: torch.device | str = "cpu") -> None:
        """To the CPU: frees the device of CLIP and VAE. ComfyUI loads them itself when they are used."""
        if torch.device(device).type == "cpu":
            for patcher in (self.clip.patcher, self.vae.patcher):
                management.unload_model_and_clones(patcher)


def opened(
    patcher: ModelPatcher, clip: CLIP, vae: VAE, scheduler: str = schedules.DEFAULT, edit: str = "auto"
) -> NativeBackbone:
    """A MODEL from a loader, with its CLIP and VAE, as a backbone that can be trained through; InputError if it cannot.

    Call it outside inference mode. The weights are loaded anew: the MODEL given stays as it is.
    """
    opening.check_flow(patcher)
    sampling = patcher.get_model_object("model_sampling")
    space = latent_space(patcher.model, sampling, opening.title(patcher.model))
    check_vae(space, vae)
    own = opening.own_copy(patcher)
    opening.load_fully(own)
    own.pre_run()
    return NativeBackbone(own, own.model, clip, vae, space, scheduler, encoding.edit_encoding(own.model, edit))


def forget_prompts(network: nn.Module) -> None:
    """Drops keys and values that HiDream-O1 keeps of a prompt between calls: they are of the LoRA asked before."""
    forget = vars(type(network)).get("clear_kv_cache")
    if forget is not None:
        forget(network)


@contextmanager
def layers_apart() -> Iterator[None]:
    """Keeps ComfyUI from fusing 8-bit layers with what comes before them, which passes by the LoRAs on them."""
    before, management.in_training = management.in_training, True
    try:
        yield
    finally:
        management.in_training = before


def _embedding(values: Mapping[str, Any]) -> Tensor:
    """(D,): the mean over the tokens of a text, and what the encoder pools of it, if it does."""
    mean = values[conditioning.TEXT].float().mean(0)
    pooled = values.get("pooled_output")
    return mean if pooled is None else torch.cat([mean, pooled[0].float()])
