"""Krea 2, as in diffusers' Krea2Pipeline, which takes texts alone.

A text is several hidden states of its encoder for each token, side by side. The pipeline pads texts and masks the
padding everywhere; here it is left out. The pipeline's guidance_scale is one less than that of `fields.guided`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..algorithm.fields import Conditioning, Value
from .agreement import text_layers
from .base import EncodingCache, OneTextEncoder
from .loading import ModelFolder, load_module, load_part, load_text
from .network_inputs import call_by_group, pack_latents, padded_texts, positions, text_layout, unpack_latents
from .qwen import TEMPLATE_TOKENS, TEXT_TEMPLATE
from .sigma_schedule import even_spacing
from .vaes import VideoVae

TOKENS = 512  # of a text at most, with its suffix
BEFORE = f"<|im_start|>system\n{TEXT_TEMPLATE}<|im_end|>\n<|im_start|>user\n"
AFTER = "<|im_end|>\n<|im_start|>assistant\n"
AFTER_TOKENS = 5
DISTILLED_MU = 1.15


@dataclass(frozen=True, eq=False)
class Krea2(OneTextEncoder):
    """distilled: whether the sigmas are shifted alike for every size. layers: the hidden states of the text encoder."""

    distilled: bool
    layers: tuple[int, ...]

    family: ClassVar[str] = "krea2"

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        return call_by_group(partial(text_layout, apart=x.is_cuda), self._group_velocity, x, sigma, cond)

    def _group_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        config: Any = self.network.config
        text, mask = padded_texts([self._cast(sample.values["text"], x)[0] for sample in cond.samples])
        grid = positions(x.device, 0, *(side // 2 for side in x.shape[2:]))
        output = self.network(
            hidden_states=pack_latents(x.to(self.dtype)),
            encoder_hidden_states=text.unflatten(2, (config.num_text_layers, config.text_hidden_dim)),
            timestep=(1000 * sigma.float() / 1000).to(self.dtype),  # rounded as the pipeline rounds it
            position_ids=torch.cat([grid.new_zeros(text.shape[1], 3), grid]),
            encoder_attention_mask=mask,
            return_dict=False,
        )[0]
        return unpack_latents(output, *x.shape[2:]).float()

    def _encode_prompt(self, prompt: str, pictures: tuple[Tensor, ...], cache: EncodingCache) -> Mapping[str, Value]:
        return {"text": cache(prompt, lambda: self._encode_text(prompt))}

    def _encode_text(self, prompt: str) -> Tensor:
        """(tokens, layers * width), of the prompt and what follows it."""
        start, device = TEMPLATE_TOKENS[TEXT_TEMPLATE], self.text_encoder.device
        length = start + TOKENS - AFTER_TOKENS
        text = self.tokenizer(
            BEFORE + prompt, padding="max_length", max_length=length, truncation=True, return_tensors="pt"
        )
        after = self.tokenizer(AFTER, return_tensors="pt")
        ids, mask = (torch.cat([text[name], after[name]], 1).to(device) for name in ("input_ids", "attention_mask"))
        counted = (mask.cumsum(1) - 1).clamp(min=0)  # padding takes no position: what follows it would be shifted
        output = self.text_encoder(
            input_ids=ids,
            attention_mask=mask.bool(),
            position_ids=counted.expand(3, -1, -1),
            output_hidden_states=True,
            use_cache=False,
        )
        stack = torch.cat([output.hidden_states[layer][0] for layer in self.layers], -1)
        return stack[start:][mask[0, start:].bool()]

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        return self._scheduled(width, height, spacing(steps, {"is_distilled": self.distilled}))


def spacing(steps: int, index: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `set_timesteps` with which the pipeline requests its sigmas, by its model_index.json."""
    fixed = {"mu": lambda tokens: DISTILLED_MU} if index.get("is_distilled") else {}
    return {**even_spacing(steps), **fixed}


def open_model(folder: ModelFolder, index: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str) -> Krea2:
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, Krea2Transformer2DModel
    from transformers import Qwen2TokenizerFast, Qwen3VLModel  # type: ignore[attr-defined]

    text_encoder, tokenizer = load_text(Qwen3VLModel, Qwen2TokenizerFast, folder, "", dtype, device)
    return Krea2(
        network=load_module(Krea2Transformer2DModel, folder, "transformer", dtype, device),
        vae=VideoVae(load_module(AutoencoderKLQwenImage, folder, "vae", dtype, device)),
        scheduler=load_part(FlowMatchEulerDiscreteScheduler, folder, "scheduler"),
        dtype=dtype,
        distilled=bool(index.get("is_distilled")),
        layers=text_layers(index),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )
