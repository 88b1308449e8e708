"""Z-Image, after diffusers' ZImagePipeline (text) and ZImageOmniPipeline (text and source pictures).

Both paths run on the plain transformer; an edit goes without the optional SigLIP features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, Value
from .base import DiffusersBackbone, Once, in_groups
from .loading import ModelFolder, load_module, load_part
from .vaes import KlVae

MAX_TOKENS = 512  # of one text segment, as in the pipeline


@dataclass(frozen=True, eq=False)
class ZImage(DiffusersBackbone):
    text_encoder: Any
    tokenizer: Any

    family: ClassVar[str] = "zimage"

    @property
    def max_sources(self) -> float:
        return math.inf

    @property
    def _encoders(self) -> tuple[nn.Module, ...]:
        return (self.text_encoder,)

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        # Text alone and edits number image positions differently.
        return in_groups(lambda sample: "sources" in sample.values, self._alike, x, sigma, cond)

    def _alike(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        ask = self._edit if "sources" in cond.samples[0].values else self._from_text
        return ask(x, sigma, cond)

    def _from_text(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        texts = [self._cast(sample.values["text"], x)[0] for sample in cond.samples]
        return self._read(self.network(self._latents(x), _clock(sigma), texts, return_dict=False))

    def _edit(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        texts = [self._cast(sample.values["text"], x) for sample in cond.samples]
        sources = [[z.unsqueeze(1) for z in self._cast(sample.values["sources"], x)] for sample in cond.samples]
        answer = self.network(
            [[*clean, noisy] for clean, noisy in zip(sources, self._latents(x), strict=True)],
            _clock(sigma),
            texts,
            siglip_feats=[None] * len(texts),
            image_noise_mask=[[0] * len(clean) + [1] for clean in sources],
            return_dict=False,
        )
        return self._read(answer)

    def _latents(self, x: Tensor) -> list[Tensor]:
        return list(x.to(self.dtype).unsqueeze(2).unbind(0))  # each (C, 1 frame, H, W)

    @staticmethod
    def _read(answer: tuple[list[Tensor]]) -> Tensor:
        return -torch.stack([v.float() for v in answer[0]]).squeeze(2)  # it answers clean - noise

    def _texts(self, prompt: str, pictures: tuple[Tensor, ...], once: Once) -> Mapping[str, Value]:
        if not pictures:
            return {"text": self._segment(self._chat(prompt), once)}
        return {"text": tuple(self._segment(part, once) for part in edit_segments(prompt, len(pictures)))}

    def _segment(self, text: str, once: Once) -> Tensor:
        return once(text, lambda: self._encode_text(text))

    def _chat(self, prompt: str) -> str:
        message = [{"role": "user", "content": prompt}]
        return self.tokenizer.apply_chat_template(
            message, tokenize=False, add_generation_prompt=True, enable_thinking=True
        )

    def _encode_text(self, text: str) -> Tensor:
        # One text a call, so that its embedding does not depend on a neighbour's length. The pipeline pads to
        # 512 instead; the encoder is causal and the padding masked, so the values agree to rounding.
        tokens = self.tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        ids, mask = tokens.input_ids, tokens.attention_mask
        device = self.text_encoder.device
        answer = self.text_encoder(input_ids=ids.to(device), attention_mask=mask.to(device), output_hidden_states=True)
        return answer.hidden_states[-2][0]

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        return self._scheduled(width, height, spacing(steps))


def _clock(sigma: Tensor) -> Tensor:
    return (1000 - 1000 * sigma.float()) / 1000  # 1 - sigma, rounded as the pipeline rounds it


def edit_segments(prompt: str, pictures: int) -> list[str]:
    """The text before, between and after the pictures and the target (ZImageOmniPipeline)."""
    between = ["<|vision_end|><|vision_start|>"] * (pictures - 1)
    request = f"<|vision_end|>{prompt}<|im_end|>\n<|im_start|>assistant\n<|vision_start|>"
    return ["<|im_start|>user\n<|vision_start|>", *between, request, "<|vision_end|><|im_end|>"]


def spacing(steps: int) -> dict[str, Any]:
    """How the pipeline asks its scheduler for sigmas."""
    return {"sigmas": torch.linspace(1.0, 1 / steps, steps).tolist()}


def open_model(folder: ModelFolder, index: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str) -> ZImage:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
    from transformers import AutoTokenizer, Qwen3Model

    return ZImage(
        network=load_module(ZImageTransformer2DModel, folder, "transformer", dtype, device),
        vae=KlVae(load_module(AutoencoderKL, folder, "vae", dtype, device)),
        scheduler=load_part(FlowMatchEulerDiscreteScheduler, folder, "scheduler"),
        dtype=dtype,
        text_encoder=load_module(Qwen3Model, folder, "text_encoder", dtype, device),
        tokenizer=load_part(AutoTokenizer, folder, "tokenizer"),
    )
