"""Z-Image, as in diffusers' ZImagePipeline (text) and ZImageOmniPipeline (text and source pictures).

Both use the plain transformer; edits omit the optional SigLIP features.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..algorithm.fields import Conditioning, Sample, Value
from ..errors import InputError, shown
from .base import EncodingCache, OneTextEncoder
from .loading import ModelFolder, at_least, load_module, load_part, load_text
from .network_inputs import call_by_group, source_shapes
from .vaes import KlVae
from .zimage_omni import MULTIPLE, forward_with_sources

MAX_TOKENS = 512  # of one text segment, as in the pipeline


@dataclass(frozen=True, eq=False)
class ZImage(OneTextEncoder):
    family: ClassVar[str] = "zimage"

    @property
    def max_sources(self) -> float:
        return math.inf

    @property
    def _longest_side(self) -> int:
        config: Any = self.network.config
        return int(min(config.axes_lens[1:]))

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        return call_by_group(lambda sample: _layout(sample, x.is_cuda), self._group_velocity, x, sigma, cond)

    def _group_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        velocity = self._edit_velocity if "sources" in cond.samples[0].values else self._text_velocity
        return velocity(x, sigma, cond)

    def _text_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        texts = [self._cast(sample.values["text"], x)[0] for sample in cond.samples]
        return self._velocity_of(self.network(self._latents(x), _clock(sigma), texts, return_dict=False))

    def _edit_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        texts = [self._cast(sample.values["text"], x) for sample in cond.samples]
        sources = [[z.unsqueeze(1) for z in self._cast(sample.values["sources"], x)] for sample in cond.samples]
        images = [[*clean, noisy] for clean, noisy in zip(sources, self._latents(x), strict=True)]
        if not at_least("diffusers", "0.37"):
            return self._velocity_of(forward_with_sources(self.network, images, _clock(sigma), texts))
        output = self.network(
            images,
            _clock(sigma),
            texts,
            siglip_feats=[None] * len(texts),
            image_noise_mask=[[0] * len(clean) + [1] for clean in sources],
            return_dict=False,
        )
        return self._velocity_of(output)

    def _latents(self, x: Tensor) -> list[Tensor]:
        return list(x.to(self.dtype).unsqueeze(2).unbind(0))  # each (C, 1 frame, H, W)

    @staticmethod
    def _velocity_of(output: tuple[list[Tensor]]) -> Tensor:
        return -torch.stack([v.float() for v in output[0]]).squeeze(2)  # the network predicts clean - noise

    def _encode_prompt(self, prompt: str, pictures: tuple[Tensor, ...], cache: EncodingCache) -> Mapping[str, Value]:
        if not pictures:
            text = self._segment(self._chat(prompt), cache)
            self._check_length(prompt, [text])
            return {"text": text}
        segments = tuple(self._segment(part, cache) for part in edit_segments(prompt, len(pictures)))
        self._check_length(prompt, segments)
        return {"text": segments}

    def _check_length(self, prompt: str, segments: Sequence[Tensor]) -> None:
        """InputError for a prompt that is longer than the network has positions for, as a small network may have."""
        config: Any = self.network.config
        last = last_position([len(segment) for segment in segments])
        if last >= config.axes_lens[0]:
            raise InputError(
                f"the prompt {shown(prompt, 60)!r} is too long: it needs {last + 1} positions, and this {self.title} "
                f"model has {config.axes_lens[0]}: shorten it"
            )

    def _segment(self, text: str, cache: EncodingCache) -> Tensor:
        return cache(text, lambda: self._encode_text(text))

    def _chat(self, prompt: str) -> str:
        # What Qwen3's template makes of it: a template from a folder is a program, which might never end.
        return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"

    def _encode_text(self, text: str) -> Tensor:
        # One text per call, so that its embedding does not depend on the length of others. The pipeline pads to
        # 512 instead; the encoder is causal and the padding is masked, so the values agree to rounding.
        tokens = self.tokenizer(text, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
        ids, mask = tokens.input_ids, tokens.attention_mask
        device = self.text_encoder.device
        output = self.text_encoder(input_ids=ids.to(device), attention_mask=mask.to(device), output_hidden_states=True)
        return output.hidden_states[-2][0]

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        return self._scheduled(width, height, spacing(steps))


def _layout(sample: Sample, on_gpu: bool) -> Hashable:
    """Samples with the same one can share a call: text-to-image and edits use different image positions.

    On a GPU only those of one length do: others need a mask, with which attention leaves its fast kernels.
    """
    texts = sample.values["text"]
    lengths = [len(text) for text in texts] if isinstance(texts, tuple) else [len(texts)]
    padded = tuple(-(-length // MULTIPLE) for length in lengths) if on_gpu else ()
    return "sources" in sample.values, padded, source_shapes(sample) if on_gpu else ()


def _clock(sigma: Tensor) -> Tensor:
    return (1000 - 1000 * sigma.float()) / 1000  # 1 - sigma, rounded as the pipeline rounds it


def last_position(lengths: Sequence[int]) -> int:
    """The last position along a text's axis, for segments of so many tokens with a picture after each but the last.

    Texts begin at 1 and are padded to a multiple of `MULTIPLE`, and what follows an edit's text is placed behind the
    text itself.
    """
    padded = [length + -length % MULTIPLE for length in lengths]
    if len(lengths) == 1:
        return padded[0] + 1
    starts = [1 + sum(lengths[:number]) + 2 * number for number in range(len(lengths))]
    return max(start + length - 1 for start, length in zip(starts, padded, strict=True))


def edit_segments(prompt: str, pictures: int) -> list[str]:
    """The text before, between and after the pictures and the target (ZImageOmniPipeline)."""
    between = ["<|vision_end|><|vision_start|>"] * (pictures - 1)
    request = f"<|vision_end|>{prompt}<|im_end|>\n<|im_start|>assistant\n<|vision_start|>"
    return ["<|im_start|>user\n<|vision_start|>", *between, request, "<|vision_end|><|im_end|>"]


def spacing(steps: int, index: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The arguments of `set_timesteps` with which the pipeline requests its sigmas."""
    return {"sigmas": torch.linspace(1.0, 1 / steps, steps).tolist()}


def open_model(folder: ModelFolder, index: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str) -> ZImage:
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImageTransformer2DModel
    from transformers import Qwen2TokenizerFast, Qwen3Model  # type: ignore[attr-defined]

    text_encoder, tokenizer = load_text(Qwen3Model, Qwen2TokenizerFast, folder, "", dtype, device)
    return ZImage(
        network=load_module(ZImageTransformer2DModel, folder, "transformer", dtype, device),
        vae=KlVae(load_module(AutoencoderKL, folder, "vae", dtype, device)),
        scheduler=load_part(FlowMatchEulerDiscreteScheduler, folder, "scheduler"),
        dtype=dtype,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )
