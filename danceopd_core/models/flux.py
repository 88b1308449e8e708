"""FLUX.1, as in diffusers' FluxPipeline (text) and FluxKontextPipeline (text and at most one source picture).

The embedded guidance of a guidance-distilled model is an input of the network, not classifier-free guidance: it is
passed to every call, and `fields.guided` is applied on top of it. A source keeps its size (`_auto_resize=False`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, Value
from .base import DiffusersBackbone, EncodingCache
from .loading import ModelFolder, clip_length, load_module, load_part, load_text, padded_ids
from .network_inputs import call_by_group, pack_latents, positions, source_shapes, unpack_latents
from .sigma_schedule import even_spacing as spacing
from .vaes import KlVae

T5_TOKENS = 512  # as in the pipeline; nothing is masked
GUIDANCE = 3.5  # the pipelines' default


@dataclass(frozen=True, eq=False)
class Flux(DiffusersBackbone):
    """guidance: the embedded one, unused by a network without guidance_embeds."""

    edits: bool  # whether it is FLUX.1 Kontext
    text_encoder: Any
    tokenizer: Any
    text_encoder_2: Any
    tokenizer_2: Any
    guidance: float = GUIDANCE

    family: ClassVar[str] = "flux"

    @property
    def max_sources(self) -> float:
        return 1 if self.edits else 0

    @property
    def _encoders(self) -> tuple[nn.Module, ...]:
        return (self.text_encoder, self.text_encoder_2)

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        return call_by_group(source_shapes, self._group_velocity, x, sigma, cond)

    def _group_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        tokens, places = [pack_latents(x.to(self.dtype))], [_positions(0, x, x.device)]
        for latents in zip(*(sample.values.get("sources", ()) for sample in cond.samples), strict=True):
            tokens.append(pack_latents(torch.stack(self._cast(latents, x))))
            places.append(_positions(1, latents[0], x.device))
        text = self._stacked("text", cond, x)
        config: Any = self.network.config
        output = self.network(
            hidden_states=torch.cat(tokens, 1),
            timestep=(1000 * sigma.float()).to(self.dtype) / 1000,  # rounded as the pipeline rounds it
            guidance=torch.full((len(x),), self.guidance, device=x.device) if config.guidance_embeds else None,
            encoder_hidden_states=text,
            pooled_projections=self._stacked("pooled", cond, x),
            txt_ids=torch.zeros(text.shape[1], 3, device=x.device, dtype=self.dtype),
            img_ids=torch.cat(places).to(self.dtype),
            return_dict=False,
        )[0]
        return unpack_latents(output[:, : tokens[0].shape[1]], *x.shape[2:]).float()

    def _encode_prompt(self, prompt: str, pictures: tuple[Tensor, ...], cache: EncodingCache) -> Mapping[str, Value]:
        return cache(prompt, lambda: self._encode_text(prompt))

    def _encode_text(self, prompt: str) -> Mapping[str, Value]:
        clip_ids = padded_ids(self.tokenizer, prompt, clip_length(self.tokenizer, self.text_encoder))
        t5_ids = padded_ids(self.tokenizer_2, prompt, T5_TOKENS)
        pooled = self.text_encoder(clip_ids.to(self.text_encoder.device)).pooler_output[0]
        return {"text": self.text_encoder_2(t5_ids.to(self.text_encoder_2.device))[0][0], "pooled": pooled}

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        return self._scheduled(width, height, spacing(steps))


def _positions(frame: int, latents: Tensor, device: torch.device) -> Tensor:
    """The (frame, row, column) of each patch, (tokens, 3); the source is frame 1."""
    return positions(device, frame, *(side // 2 for side in latents.shape[-2:])).float()


def open_model(folder: ModelFolder, index: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str) -> Flux:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
    from transformers import CLIPTextModel, CLIPTokenizerFast, T5EncoderModel, T5TokenizerFast  # type: ignore[attr-defined]

    clip, clip_tokenizer = load_text(CLIPTextModel, CLIPTokenizerFast, folder, "", dtype, device)
    t5, t5_tokenizer = load_text(T5EncoderModel, T5TokenizerFast, folder, "_2", dtype, device)
    return Flux(
        network=load_module(FluxTransformer2DModel, folder, "transformer", dtype, device),
        vae=KlVae(load_module(AutoencoderKL, folder, "vae", dtype, device)),
        scheduler=load_part(FlowMatchEulerDiscreteScheduler, folder, "scheduler"),
        dtype=dtype,
        edits=index["_class_name"] == "FluxKontextPipeline",
        text_encoder=clip,
        tokenizer=clip_tokenizer,
        text_encoder_2=t5,
        tokenizer_2=t5_tokenizer,
    )
