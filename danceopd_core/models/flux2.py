"""FLUX.2 klein, as in diffusers' Flux2KleinPipeline: text, and any number of source pictures.

Every latent is one token: the VAE's latents are normalised in patches of 2 x 2. Guidance is classifier-free, against
the empty prompt; the pipeline gives a step-distilled klein none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..algorithm.fields import Conditioning, Value
from .base import EncodingCache, OneTextEncoder
from .loading import ModelFolder, load_module, load_part, load_text
from .network_inputs import call_by_group, positions, source_shapes
from .sigma_schedule import even_spacing
from .vaes import PatchedVae

TOKENS = 512  # as in the pipeline; the network sees the padding too
LAYERS = (9, 18, 27)  # of the text encoder, whose outputs are the text's embedding
FRAME = 10  # between a source picture and the next along the first axis of positions
LARGEST_SOURCE = 1024**2  # pixels


@dataclass(frozen=True, eq=False)
class Flux2Klein(OneTextEncoder):
    family: ClassVar[str] = "flux2"

    @property
    def max_sources(self) -> float:
        return math.inf

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        return call_by_group(source_shapes, self._group_velocity, x, sigma, cond)

    def _group_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        parts = [x.to(self.dtype)]
        for latents in zip(*(sample.values.get("sources", ()) for sample in cond.samples), strict=True):
            parts.append(torch.stack(self._cast(latents, x)))
        text = self._stacked("text", cond, x)
        output = self.network(
            hidden_states=torch.cat([part.flatten(2).transpose(1, 2) for part in parts], 1),
            timestep=(1000 * sigma.float()).to(self.dtype) / 1000,  # rounded as the pipeline rounds it
            guidance=None,
            encoder_hidden_states=text,
            # Of each token: frame, row, column, and place in the text.
            txt_ids=positions(x.device, 0, 1, 1, text.shape[1]),
            img_ids=torch.cat([positions(x.device, FRAME * at, *part.shape[2:], 1) for at, part in enumerate(parts)]),
            return_dict=False,
        )[0]
        return output[:, : x[0, 0].numel()].transpose(1, 2).unflatten(2, x.shape[2:]).float()

    def _encode_prompt(self, prompt: str, pictures: tuple[Tensor, ...], cache: EncodingCache) -> Mapping[str, Value]:
        return cache(prompt, lambda: {"text": self._encode_text(prompt)})

    def _encode_text(self, prompt: str) -> Tensor:
        # What Qwen3's template makes of it without thinking: one from a folder is a program, which might never end.
        chat = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
        tokens = self.tokenizer(chat, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
        device = self.text_encoder.device
        ids, mask = tokens.input_ids.to(device), tokens.attention_mask.to(device)
        output = self.text_encoder(input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        return torch.cat([output.hidden_states[layer][0] for layer in LAYERS], -1)

    def _encode_source(self, picture: Tensor) -> Tensor:
        return self.encode_image(_within_area(picture, self.size_multiple)[None])[0]

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        return self._scheduled(width, height, spacing(steps))


def _within_area(picture: Tensor, multiple: int) -> Tensor:
    """A picture (H, W, 3), scaled down to `LARGEST_SOURCE` if it is larger and then cut to multiples of its middle."""
    height, width = picture.shape[:2]
    if width * height <= LARGEST_SOURCE:
        return picture
    scale = math.sqrt(LARGEST_SOURCE / (width * height))
    size = int(width * scale), int(height * scale)
    pixels = Image.fromarray((picture.cpu() * 255).round().to(torch.uint8).numpy())
    small = np.asarray(pixels.resize(size, Image.Resampling.LANCZOS))
    columns, rows = (side // multiple * multiple for side in size)
    left, top = (size[0] - columns) // 2, (size[1] - rows) // 2
    return torch.from_numpy(small[top : top + rows, left : left + columns].copy()).float() / 255


def empirical_mu(tokens: int, steps: int) -> float:
    """The shift's exponent, by the picture's tokens and the number of steps, as FLUX.2 was fitted with it."""
    many = 0.00016927 * tokens + 0.45666666  # at 200 steps
    if tokens > 4300:
        return many
    few = 8.73809524e-05 * tokens + 1.89833333  # at 10 steps
    slope = (many - few) / 190.0
    return slope * steps + (many - 200.0 * slope)


def spacing(steps: int, index: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The arguments of `set_timesteps` with which the pipeline requests its sigmas; mu by the number of tokens."""
    return {**even_spacing(steps), "mu": partial(empirical_mu, steps=steps)}


def open_model(
    folder: ModelFolder, index: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str
) -> Flux2Klein:
    from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
    from transformers import Qwen2TokenizerFast, Qwen3Model  # type: ignore[attr-defined]

    text_encoder, tokenizer = load_text(Qwen3Model, Qwen2TokenizerFast, folder, "", dtype, device)
    return Flux2Klein(
        network=load_module(Flux2Transformer2DModel, folder, "transformer", dtype, device),
        vae=PatchedVae(load_module(AutoencoderKLFlux2, folder, "vae", dtype, device)),
        scheduler=load_part(FlowMatchEulerDiscreteScheduler, folder, "scheduler"),
        dtype=dtype,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )
