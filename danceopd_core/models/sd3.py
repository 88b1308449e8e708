"""Stable Diffusion 3 and 3.5, after diffusers' StableDiffusion3Pipeline: text-to-image only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, Value
from .base import DiffusersBackbone, Once
from .loading import ModelFolder, load_module, load_part, padded_ids
from .vaes import KlVae

T5_TOKENS = 256  # as in the pipeline; nothing is masked, so the length is part of what the network was trained on


@dataclass(frozen=True, eq=False)
class StableDiffusion3(DiffusersBackbone):
    """`clips` are the two CLIP text encoders with their tokenizers, `t5` the third; without one its part is zeros."""

    clips: tuple[tuple[Any, Any], ...]
    t5: tuple[Any, Any] | None

    family: ClassVar[str] = "sd3"

    @property
    def max_sources(self) -> float:
        return 0

    @property
    def _encoders(self) -> tuple[nn.Module, ...]:
        return tuple(encoder for encoder, _ in (*self.clips, *([self.t5] if self.t5 else [])))

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        answer = self.network(
            hidden_states=x.to(self.dtype),
            timestep=1000 * sigma.float(),  # not cast: the pipeline does not round its time either
            encoder_hidden_states=self._stacked("text", cond, x),
            pooled_projections=self._stacked("pooled", cond, x),
            return_dict=False,
        )
        return answer[0].float()

    def _texts(self, prompt: str, pictures: tuple[Tensor, ...], once: Once) -> Mapping[str, Value]:
        return once(prompt, lambda: self._encode_text(prompt))

    def _encode_text(self, prompt: str) -> Mapping[str, Value]:
        config: Any = self.network.config
        width = config.joint_attention_dim
        hidden, pooled = [], []
        for encoder, tokenizer in self.clips:
            ids = padded_ids(tokenizer, prompt, self.clips[0][1].model_max_length)
            answer = encoder(ids.to(encoder.device), output_hidden_states=True)
            hidden.append(answer.hidden_states[-2][0])
            pooled.append(answer.text_embeds[0])
        clip = torch.cat(hidden, -1)
        clip = nn.functional.pad(clip, (0, width - clip.shape[-1]))
        if self.t5:
            encoder, tokenizer = self.t5
            long = encoder(padded_ids(tokenizer, prompt, T5_TOKENS).to(encoder.device))[0][0]
        else:
            long = clip.new_zeros(T5_TOKENS, width)
        return {"text": torch.cat([clip, long]), "pooled": torch.cat(pooled)}

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        return self._scheduled(width, height, spacing(steps))


def spacing(steps: int) -> dict[str, Any]:
    """How the pipeline asks its scheduler for sigmas."""
    # The pipeline leaves it to the scheduler, which spaces evenly between shifted ends and shifts again.
    return {"num_inference_steps": steps}


def open_model(
    folder: ModelFolder, index: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str
) -> StableDiffusion3:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
    from transformers import CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel, T5Tokenizer

    def encoder(cls: Any, tokenizer: Any, number: str) -> tuple[Any, Any]:
        module = load_module(cls, folder, f"text_encoder{number}", dtype, device)
        return module, load_part(tokenizer, folder, f"tokenizer{number}")

    has_t5 = (index.get("text_encoder_3") or [None])[0] is not None
    return StableDiffusion3(
        network=load_module(SD3Transformer2DModel, folder, "transformer", dtype, device),
        vae=KlVae(load_module(AutoencoderKL, folder, "vae", dtype, device)),
        scheduler=load_part(FlowMatchEulerDiscreteScheduler, folder, "scheduler"),
        dtype=dtype,
        clips=tuple(encoder(CLIPTextModelWithProjection, CLIPTokenizer, number) for number in ("", "_2")),
        t5=encoder(T5EncoderModel, T5Tokenizer, "_3") if has_t5 else None,
    )
