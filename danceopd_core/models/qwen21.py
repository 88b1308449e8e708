"""Qwen-Image-2.1, as in diffusers' QwenImage21Pipeline: text, and any number of source pictures.

The text encoder sees the sources. In the network's sequence their latents stand where it saw them, so of its output the
text between them is kept. The network numbers the padding of a text too, so that only texts of one length share a call.
The pipeline keeps what it computed of text and sources from the first step on, which is the same but for rounding.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..algorithm.fields import Conditioning, Sample, Value
from .base import EncodingCache, OneTextEncoder
from .loading import ModelFolder, load_module, load_part, load_text
from .network_inputs import call_by_group, source_shapes
from .qwen import image_processor_class, resized, resized_tensor
from .sigma_schedule import even_spacing
from .vaes import RgbaVae

SYSTEM = "<|im_start|>system\nComprehend and analyze the provided prompt.<|im_end|>\n"
SOURCE = "<image{}><|vision_start|>{}<|vision_end|>"
SOURCE_AREA = 1024**2  # pixels to which every source is resized


@dataclass(frozen=True, eq=False)
class QwenImage21(OneTextEncoder):
    """sample_sigmas: of a model of few steps, otherwise none."""

    image_processor: Any
    sample_sigmas: tuple[float, ...] = ()
    source_area: int = SOURCE_AREA

    family: ClassVar[str] = "qwen21"

    @property
    def max_sources(self) -> float:
        return math.inf

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        return call_by_group(_layout, self._group_velocity, x, sigma, cond)

    def _group_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        sources = zip(*(sample.values.get("sources", ()) for sample in cond.samples), strict=True)
        pictures = [*(torch.stack(self._cast(latents, x)) for latents in sources), x.to(self.dtype)]
        slots = [picture[0, 0].numel() // 4 for picture in pictures]  # each of 2 x 2 latents
        texts = zip(*(self._cast(sample.values["text"], x) for sample in cond.samples), strict=True)
        first, *others = map(torch.stack, texts)
        joined, seen = [first], [False] * first.shape[1]
        for slot, text in zip(slots, others, strict=False):  # the target's are behind the last text
            joined += [first.new_zeros(len(x), slot, first.shape[2]), text]
            seen += [True] * slot + [False] * text.shape[1]
        seen += [True] * slots[-1]
        output = self.network(
            hidden_states=torch.cat([picture.flatten(2).transpose(1, 2) for picture in pictures], 1),
            timestep=(1000 * sigma.float()).to(self.dtype) / 1000,  # rounded as the pipeline rounds it
            encoder_hidden_states=torch.cat(joined, 1),
            img_shapes=[[(1, *picture.shape[2:]) for picture in pictures]] * len(x),
            # The network reads it, also where all else has no memory.
            img_mask=torch.tensor(seen, device="cpu" if x.is_meta else x.device).expand(len(x), -1),
            return_dict=False,
        )[0]
        return output[:, -x[0, 0].numel() :].transpose(1, 2).unflatten(2, x.shape[2:]).float()

    def _encode_prompt(self, prompt: str, pictures: tuple[Tensor, ...], cache: EncodingCache) -> Mapping[str, Value]:
        if pictures:  # the encoding depends on the pictures, so it is not cached
            return {"text": self._encode_text(prompt, pictures)}
        return {"text": cache(prompt, lambda: self._encode_text(prompt, ())[0])}

    def _encode_text(self, prompt: str, pictures: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The text before, between and behind the pictures, (tokens, D) each."""
        vision: dict[str, Tensor] = {}
        placeholders = ""
        if pictures:
            images = [resized(picture, self.source_area) for picture in pictures]
            vision = dict(self.image_processor(images=images, return_tensors="pt"))
            counts = (vision["image_grid_thw"].prod(1) // self.image_processor.merge_size**2).tolist()
            placeholders = " ".join(SOURCE.format(at, "<|image_pad|>" * count) for at, count in enumerate(counts, 1))
        text = f"{SYSTEM}<|im_start|>user\n{placeholders}{prompt or ' '}<|im_end|>\n<|im_start|>assistant\n"
        tokens = self.tokenizer(text, return_tensors="pt")
        start, device = len(self.tokenizer(SYSTEM).input_ids), self.text_encoder.device
        seen = tokens.input_ids == self.text_encoder.config.image_token_id
        if pictures:
            vision["mm_token_type_ids"] = seen.int()
        inputs = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask, **vision}
        states = self._states({name: value.to(device) for name, value in inputs.items()})[0, start:]
        lengths = [len(list(run)) for of_picture, run in groupby(seen[0, start:].tolist()) if not of_picture]
        return states[~seen[0, start:].to(device)].split(lengths)

    def _states(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The last hidden states before the encoder's norm, which the network was trained on."""
        handle = self.text_encoder.language_model.norm.register_forward_hook(lambda module, given, output: given[0])
        try:
            return self.text_encoder(**inputs, use_cache=False).last_hidden_state
        finally:
            handle.remove()

    def _encode_source(self, picture: Tensor) -> Tensor:
        return self.encode_image(resized_tensor(picture, self.source_area)[None])[0]

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        return self._scheduled(width, height, spacing(steps, {"sample_sigmas": self.sample_sigmas}))


def _layout(sample: Sample) -> Hashable:
    """Samples with the same one can share a call."""
    text = sample.values["text"]
    return source_shapes(sample), tuple(map(len, (text,) if isinstance(text, Tensor) else text))


def spacing(steps: int, index: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `set_timesteps` with which the pipeline requests its sigmas, by its model_index.json."""
    own = list(index.get("sample_sigmas") or ())
    return {**even_spacing(steps), **({"sigmas": own} if len(own) == steps else {}), "each": 4}


def open_model(
    folder: ModelFolder, index: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str
) -> QwenImage21:
    from diffusers import AutoencoderKLQwenImage21, FlowMatchEulerDiscreteScheduler, QwenImage21Transformer2DModel
    from transformers import Qwen2TokenizerFast, Qwen3VLModel  # type: ignore[attr-defined]

    text_encoder, tokenizer = load_text(Qwen3VLModel, Qwen2TokenizerFast, folder, "", dtype, device)
    return QwenImage21(
        network=load_module(QwenImage21Transformer2DModel, folder, "transformer", dtype, device),
        vae=RgbaVae(load_module(AutoencoderKLQwenImage21, folder, "vae", dtype, device)),
        scheduler=load_part(FlowMatchEulerDiscreteScheduler, folder, "scheduler"),
        dtype=dtype,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        image_processor=load_part(image_processor_class(), folder, "processor"),
        sample_sigmas=tuple(index.get("sample_sigmas") or ()),
        source_area=SOURCE_AREA,
    )
