"""Stable Diffusion 3 and 3.5, as in diffusers' StableDiffusion3Pipeline: text-to-image only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, Value
from .base import DiffusersBackbone, EncodingCache
from .loading import ModelFolder, clip_length, load_module, load_part, load_text, padded_ids
from .registry import absent
from .vaes import KlVae

T5_TOKENS = 256  # as in the pipeline; nothing is masked, so the length is part of what the network was trained on


@dataclass(frozen=True, eq=False)
class StableDiffusion3(DiffusersBackbone):
    """clips: the two CLIP text encoders with their tokenizers. t5: the third, or None (zeros instead)."""

    clips: tuple[tuple[Any, Any], ...]
    t5: tuple[Any, Any] | None

    family: ClassVar[str] = "sd3"

    @property
    def _encoders(self) -> tuple[nn.Module, ...]:
        return tuple(encoder for encoder, _ in (*self.clips, *([self.t5] if self.t5 else [])))

    @property
    def _longest_side(self) -> int | None:
        config: Any = self.network.config
        return int(config.pos_embed_max_size) if config.pos_embed_max_size else None

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        output = self.network(
            hidden_states=x.to(self.dtype),
            timestep=1000 * sigma.float(),  # not cast: the pipeline does not round its timestep either
            encoder_hidden_states=self._stacked("text", cond, x),
            pooled_projections=self._stacked("pooled", cond, x),
            return_dict=False,
        )
        return output[0].float()

    def _encode_prompt(self, prompt: str, pictures: tuple[Tensor, ...], cache: EncodingCache) -> Mapping[str, Value]:
        return cache(prompt, lambda: self._encode_text(prompt))

    def _encode_text(self, prompt: str) -> Mapping[str, Value]:
        config: Any = self.network.config
        width = config.joint_attention_dim
        hidden, pooled = [], []
        length = min(clip_length(self.clips[0][1], encoder) for encoder, _ in self.clips)
        for encoder, tokenizer in self.clips:
            ids = padded_ids(tokenizer, prompt, length)
            output = encoder(ids.to(encoder.device), output_hidden_states=True)
            hidden.append(output.hidden_states[-2][0])
            pooled.append(output.text_embeds[0])
        clip = torch.cat(hidden, -1)
        clip = nn.functional.pad(clip, (0, width - clip.shape[-1]))
        if self.t5:
            encoder, tokenizer = self.t5
            t5 = encoder(padded_ids(tokenizer, prompt, T5_TOKENS).to(encoder.device))[0][0]
        else:
            t5 = clip.new_zeros(T5_TOKENS, width)
        return {"text": torch.cat([clip, t5]), "pooled": torch.cat(pooled)}

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        return self._scheduled(width, height, spacing(steps))


def spacing(steps: int, index: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The arguments of `set_timesteps` with which the pipeline requests its sigmas."""
    # The pipeline leaves them to the scheduler, which spaces them evenly between shifted ends and shifts them again.
    return {"num_inference_steps": steps}


def open_model(
    folder: ModelFolder, index: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str
) -> StableDiffusion3:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
    from transformers import CLIPTextModelWithProjection, CLIPTokenizerFast, T5EncoderModel, T5TokenizerFast  # type: ignore[attr-defined]

    def encoder(cls: Any, tokenizer: Any, number: str) -> tuple[Any, Any]:
        return load_text(cls, tokenizer, folder, number, dtype, device)

    has_t5 = not absent(index, "text_encoder_3")
    return StableDiffusion3(
        network=load_module(SD3Transformer2DModel, folder, "transformer", dtype, device),
        vae=KlVae(load_module(AutoencoderKL, folder, "vae", dtype, device)),
        scheduler=load_part(FlowMatchEulerDiscreteScheduler, folder, "scheduler"),
        dtype=dtype,
        clips=tuple(encoder(CLIPTextModelWithProjection, CLIPTokenizerFast, number) for number in ("", "_2")),
        t5=encoder(T5EncoderModel, T5TokenizerFast, "_3") if has_t5 else None,
    )
