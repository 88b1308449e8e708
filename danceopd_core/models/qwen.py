"""Qwen-Image, after diffusers' QwenImagePipeline, QwenImageEditPipeline and QwenImageEditPlusPipeline.

An edit's text encoder sees the pictures too. A prompt without pictures is read as Qwen-Image reads it, whichever
folder is open. The pipelines rescale guided velocities to the length of the unguided ones; `fields.guided` does not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, Value
from .base import DiffusersBackbone, Once, in_groups, packed, source_shapes, unpacked
from .loading import ModelFolder, load_module, load_part
from .sigma_schedule import evenly as spacing
from .vaes import VideoVae

MAX_TOKENS = 512  # of a text without pictures, behind its template
DRAW = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the "
    "objects and background:"
)
EDIT = (
    "Describe the key features of the input image (color, shape, size, texture, objects, background), then explain "
    "how the user's text instruction should alter or modify the image. Generate a new image that meets the user's "
    "requirements while maintaining consistency with the original input where appropriate."
)
DROPPED = {DRAW: 34, EDIT: 64}  # tokens of the template that the network never sees


class Editing(NamedTuple):
    """How a model edits: at most so many pictures, each behind a label, in about so many pixels whatever their own
    size: `seen_area` for the text encoder, `area` for the VAE.
    """

    most: float
    label: str
    seen_area: int
    area: int


EDITING = {
    "QwenImagePipeline": Editing(0, "", 0, 0),
    "QwenImageEditPipeline": Editing(1, "", 1024**2, 1024**2),
    "QwenImageEditPlusPipeline": Editing(math.inf, "Picture {}: ", 384**2, 1024**2),
}


@dataclass(frozen=True, eq=False)
class QwenImage(DiffusersBackbone):
    """`image_processor`: the text encoder's, where the model edits."""

    editing: Editing
    text_encoder: Any
    tokenizer: Any
    image_processor: Any

    family: ClassVar[str] = "qwen"

    @property
    def max_sources(self) -> float:
        return self.editing.most

    @property
    def _encoders(self) -> tuple[nn.Module, ...]:
        return (self.text_encoder,)

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        return in_groups(source_shapes, self._alike, x, sigma, cond)

    def _alike(self, x: Tensor, sigma: Tensor, cond: Conditioning) -> Tensor:
        tokens, frames = [packed(x.to(self.dtype))], [x]
        for latents in zip(*(sample.values.get("sources", ()) for sample in cond.samples), strict=True):
            tokens.append(packed(torch.stack(self._cast(latents, x))))
            frames.append(latents[0])
        texts = [self._cast(sample.values["text"], x)[0] for sample in cond.samples]
        lengths = torch.tensor([len(text) for text in texts], device=x.device)
        mask = torch.arange(int(lengths.max()), device=x.device) < lengths[:, None]
        answer = self.network(
            hidden_states=torch.cat(tokens, 1),
            timestep=(1000 * sigma.float()).to(self.dtype) / 1000,  # rounded as the pipeline rounds it
            encoder_hidden_states=nn.utils.rnn.pad_sequence(texts, batch_first=True),
            encoder_hidden_states_mask=None if mask.all() else mask,
            img_shapes=[[(1, frame.shape[-2] // 2, frame.shape[-1] // 2) for frame in frames]] * len(x),
            return_dict=False,
        )[0]
        return unpacked(answer[:, : tokens[0].shape[1]], *x.shape[2:]).float()

    def _texts(self, prompt: str, pictures: tuple[Tensor, ...], once: Once) -> Mapping[str, Value]:
        if pictures:  # what is made of a prompt differs from picture to picture
            return {"text": self._read(EDIT, prompt, pictures)}
        return {"text": once(prompt, lambda: self._read(DRAW, prompt, ())[:MAX_TOKENS])}

    def _read(self, task: str, prompt: str, pictures: Sequence[Tensor]) -> Tensor:
        seen: dict[str, Tensor] = {}
        shown = ""
        if pictures:
            images = [_resized(picture, self.editing.seen_area) for picture in pictures]
            seen = dict(self.image_processor(images=images, return_tensors="pt"))
            patches = seen["image_grid_thw"].prod(1) // self.image_processor.merge_size**2
            shown = "".join(
                f"{self.editing.label.format(number)}<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>"
                for number, count in enumerate(patches.tolist(), 1)
            )
        text = (
            f"<|im_start|>system\n{task}<|im_end|>\n<|im_start|>user\n{shown}{prompt}<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
        limit = {} if pictures else {"truncation": True, "max_length": 1024 + DROPPED[task]}
        tokens = self.tokenizer(text, return_tensors="pt", **limit)
        if pictures:
            # Without them transformers 5 numbers the patches of a picture like words, not by row and column.
            seen["mm_token_type_ids"] = (tokens.input_ids == self.text_encoder.config.image_token_id).int()
        asked = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask, **seen}
        device = self.text_encoder.device
        answer = self.text_encoder(
            **{name: value.to(device) for name, value in asked.items()}, output_hidden_states=True
        )
        return answer.hidden_states[-1][0, DROPPED[task] :]

    def _source(self, picture: Tensor) -> Tensor:
        image = np.asarray(_resized(picture, self.editing.area))
        return self.encode_image(torch.from_numpy(image.copy())[None].float() / 255)[0]

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        return self._scheduled(width, height, spacing(steps))


def _resized(picture: Tensor, area: int) -> Image.Image:
    """A picture (H, W, 3) in [0, 1] at about `area` pixels, its sides multiples of 32 near its aspect ratio."""
    height, width = picture.shape[:2]
    ratio = width / height
    wide = math.sqrt(area * ratio)
    size = (round(wide / 32) * 32, round(wide / ratio / 32) * 32)
    pixels = (picture.cpu() * 255).round().to(torch.uint8).numpy()
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)


def open_model(
    folder: ModelFolder, index: Mapping[str, Any], dtype: torch.dtype, device: torch.device | str
) -> QwenImage:
    from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
    from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer, Qwen2VLImageProcessorPil

    editing = EDITING[index["_class_name"]]
    return QwenImage(
        network=load_module(QwenImageTransformer2DModel, folder, "transformer", dtype, device),
        vae=VideoVae(load_module(AutoencoderKLQwenImage, folder, "vae", dtype, device)),
        scheduler=load_part(FlowMatchEulerDiscreteScheduler, folder, "scheduler"),
        dtype=dtype,
        editing=editing,
        text_encoder=load_module(Qwen2_5_VLForConditionalGeneration, folder, "text_encoder", dtype, device),
        tokenizer=load_part(Qwen2Tokenizer, folder, "tokenizer"),
        # Of the processor only this half: the whole one also wants a video processor, and so torchvision.
        image_processor=load_part(Qwen2VLImageProcessorPil, folder, "processor") if editing.most else None,
    )
