"""Qwen-Image, as in diffusers' QwenImagePipeline, QwenImageEditPipeline and QwenImageEditPlusPipeline.

The text encoder also sees the source pictures of an edit. A prompt without pictures is encoded as by Qwen-Image,
whichever model is open. The pipelines rescale guided velocities to the norm of the unguided ones; `fields.guided` does
not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..algorithm.fields import Conditioning, Value
from ..errors import InputError
from .base import EncodingCache, OneTextEncoder
from .loading import ModelFolder, at_least, load_module, load_part, load_text
from .network_inputs import call_by_group, pack_latents, padded_texts, text_layout, unpack_latents
from .part_files import read_settings
from .sigma_schedule import even_spacing as spacing
from .vaes import VideoVae

MAX_TOKENS = 512  # of a text without pictures, after its template
TEXT_TEMPLATE = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:"
)
EDIT_TEMPLATE = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain "
    "how the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate."
)
TEMPLATE_TOKENS = {TEXT_TEMPLATE: 34, EDIT_TEMPLATE: 64}  # leading tokens, which are not passed to the network


class Editing(NamedTuple):
    """How a model edits: the largest number of source pictures, the label before each in the prompt, and the area in
    pixels to which they are resized for the text encoder and for the VAE.
    """

    max_sources: float
    label: str
    encoder_area: int
    vae_area: int


EDITING = {
    "QwenImagePipeline": Editing(0, "", 0, 0),
    "QwenImageEditPipeline": Editing(1, "", 1024**2, 1024**2),
    "QwenImageEditPlusPipeline": Editing(math.inf, "Picture {}: ", 384**2, 1024**2),
}


@dataclass(frozen=True, eq=False)
class QwenImage(OneTextEncoder):
    """image_processor: of the text encoder, None unless the model edits."""

    editing: Editing
    image_processor: Any

    family: ClassVar[str] = "qwen"

    @property
    def max_sources(self) -> float:
        return self.editing.max_sources

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        # Before diffusers 0.37 the network takes no notice of its mask at all.
        apart = x.is_cuda or not at_least("diffusers", "0.37")
        return call_by_group(partial(text_layout, apart=apart), self._group_velocity, x, sigma, cond)

    def _group_velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        tokens, frames = [pack_latents(x.to(self.dtype))], [x]
        for latents in zip(*(sample.values.get("sources", ()) for sample in cond.samples), strict=True):
            tokens.append(pack_latents(torch.stack(self._cast(latents, x))))
            frames.append(latents[0])
        texts = [self._cast(sample.values["text"], x)[0] for sample in cond.samples]
        text, mask = padded_texts(texts)
        output = self.network(
            hidden_states=torch.cat(tokens, 1),
            timestep=(1000 * sigma.float()).to(self.dtype) / 1000,  # rounded as the pipeline rounds it
            encoder_hidden_states=text,
            encoder_hidden_states_mask=mask,
            **({} if at_least("diffusers", "0.37") else {"txt_seq_lens": [len(text) for text in texts]}),
            img_shapes=[[(1, frame.shape[-2] // 2, frame.shape[-1] // 2) for frame in frames]] * len(x),
            return_dict=False,
        )[0]
        return unpack_latents(output[:, : tokens[0].shape[1]], *x.shape[2:]).float()

    def _encode_prompt(self, prompt: str, pictures: tuple[Tensor, ...], cache: EncodingCache) -> Mapping[str, Value]:
        if pictures:  # the encoding depends on the pictures, so it is not cached
            return {"text": self._encode_text(EDIT_TEMPLATE, prompt, pictures)}
        return {"text": cache(prompt, lambda: self._encode_text(TEXT_TEMPLATE, prompt, ())[:MAX_TOKENS])}

    def _encode_text(self, template: str, prompt: str, pictures: Sequence[Tensor]) -> Tensor:
        vision: dict[str, Tensor] = {}
        placeholders = ""
        if pictures:
            images = [resized(picture, self.editing.encoder_area) for picture in pictures]
            vision = dict(self.image_processor(images=images, return_tensors="pt"))
            patches = vision["image_grid_thw"].prod(1) // self.image_processor.merge_size**2
            placeholders = "".join(
                f"{self.editing.label.format(number)}<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>"
                for number, count in enumerate(patches.tolist(), 1)
            )
        text = (
            f"<|im_start|>system\n{template}<|im_end|>\n<|im_start|>user\n{placeholders}{prompt}<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
        limit = {} if pictures else {"truncation": True, "max_length": 1024 + TEMPLATE_TOKENS[template]}
        tokens = self.tokenizer(text, return_tensors="pt", **limit)
        if pictures:
            # Without it transformers 5 gives image patches the positions of text tokens, not rows and columns.
            vision["mm_token_type_ids"] = (tokens.input_ids == self.text_encoder.config.image_token_id).int()
        inputs = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask, **vision}
        device = self.text_encoder.device
        output = self.text_encoder(
            **{name: value.to(device) for name, value in inputs.items()}, output_hidden_states=True
        )
        return output.hidden_states[-1][0, TEMPLATE_TOKENS[template] :]

    def _encode_source(self, picture: Tensor) -> Tensor:
        return self.encode_image(resized_tensor(picture, self.editing.vae_area)[None])[0]

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        return self._scheduled(width, height, spacing(steps))


def resized(picture: Tensor, area: int) -> Image.Image:
    """A picture (H, W, 3) in [0, 1] resized to about `area` pixels; sides are multiples of 32, close to its aspect."""
    height, width = picture.shape[:2]
    ratio = width / height
    wide = math.sqrt(area * ratio)
    size = (round(wide / 32) * 32, round(wide / ratio / 32) * 32)
    pixels = (picture.cpu() * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)


def resized_tensor(picture: Tensor, area: int) -> Tensor:
    """The same as a tensor (H, W, 3) in [0, 1]."""
    return torch.from_numpy(np.array(resized(picture, area))).float() / 255


def open_model(
    folder: ModelFolder, index: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str
) -> QwenImage:
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2TokenizerFast  # type: ignore[attr-defined]

    _check_timing(folder)
    editing = EDITING[index["_class_name"]]
    text = load_text(Qwen2_5_VLForConditionalGeneration, Qwen2TokenizerFast, folder, "", dtype, device)
    text_encoder, tokenizer = text
    return QwenImage(
        network=load_module(QwenImageTransformer2DModel, folder, "transformer", dtype, device),
        vae=VideoVae(load_module(AutoencoderKLQwenImage, folder, "vae", dtype, device)),
        scheduler=load_part(FlowMatchEulerDiscreteScheduler, folder, "scheduler"),
        dtype=dtype,
        editing=editing,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        # Only this part of the processor: the whole one also needs a video processor, and with it torchvision.
        image_processor=load_part(image_processor_class(), folder, "processor") if editing.max_sources else None,
    )


def image_processor_class() -> Any:
    """The class of the image processor that does without torchvision: transformers 5.4 gave it a name of its own."""
    import transformers

    named = at_least("transformers", "5.4")
    return transformers.Qwen2VLImageProcessorPil if named else transformers.Qwen2VLImageProcessor


def _check_timing(folder: ModelFolder) -> None:
    """InputError for a model whose sources have a time of their own where diffusers would ignore that."""
    file = folder.path / "transformer" / "config.json"
    if at_least("diffusers", "0.37"):
        return
    if read_settings(file).get("zero_cond_t"):
        raise InputError(f"{folder.path} needs diffusers 0.37 (zero_cond_t): pip install -U diffusers")
