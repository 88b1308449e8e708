"""Prompts, and the pictures that they edit, as samples: through CLIP and VAE, by the stock nodes' own functions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from comfy.model_base import BaseModel
from comfy.sd import CLIP, VAE
from comfy_extras.nodes_edit_model import ReferenceLatent
from comfy_extras.nodes_flux import FluxKontextMultiReferenceLatentMethod
from comfy_extras.nodes_qwen import TextEncodeQwenImageEdit, TextEncodeQwenImageEditPlus
from comfy_extras.nodes_zimage import TextEncodeZImageOmni
from torch import Tensor

from ...danceopd_core.algorithm.fields import Sample
from ...danceopd_core.errors import InputError
from ...danceopd_core.lookup import lookup
from .conditioning import sample_of

Encode = Callable[[CLIP, VAE, str, Sequence[Tensor]], Any]
"""(clip, vae, prompt, pictures (1, H, W, 3)) -> CONDITIONING."""


def text_only(clip: CLIP, prompt: str) -> Any:
    """What CLIP Text Encode gives."""
    return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))


def with_references(clip: CLIP, vae: VAE, prompt: str, pictures: Sequence[Tensor]) -> Any:
    """The text, and the pictures by chained Reference Latent nodes: Kontext, FLUX.2, Krea 2."""
    conditioning = text_only(clip, prompt)
    for picture in pictures:
        conditioning = ReferenceLatent.execute(conditioning, {"samples": vae.encode(picture)}).args[0]
    return conditioning


def _with_indexed_references(clip: CLIP, vae: VAE, prompt: str, pictures: Sequence[Tensor]) -> Any:
    conditioning = with_references(clip, vae, prompt, pictures)
    return FluxKontextMultiReferenceLatentMethod.execute(conditioning, "index").args[0]


def _qwen_edit(clip: CLIP, vae: VAE, prompt: str, pictures: Sequence[Tensor]) -> Any:
    _at_most(pictures, 1)
    return TextEncodeQwenImageEdit.execute(clip, prompt, vae, *pictures).args[0]


def _qwen_edit_plus(clip: CLIP, vae: VAE, prompt: str, pictures: Sequence[Tensor]) -> Any:
    _at_most(pictures, 3)
    return TextEncodeQwenImageEditPlus.execute(clip, prompt, vae, *pictures).args[0]


def _zimage_omni(clip: CLIP, vae: VAE, prompt: str, pictures: Sequence[Tensor]) -> Any:
    _at_most(pictures, 3)
    return TextEncodeZImageOmni.execute(clip, prompt, None, False, vae, *pictures).args[0]


EDITS: Mapping[str, Encode] = {
    "reference_latent": with_references,
    "reference_latent_index": _with_indexed_references,
    "qwen_edit": _qwen_edit,
    "qwen_edit_plus": _qwen_edit_plus,
    "zimage_omni": _zimage_omni,
}
"""How source pictures reach a model, by name."""
USUAL = {"QwenImage": "qwen_edit_plus", "Lumina2": "zimage_omni"}
"""The entry of EDITS by ComfyUI's class of the model; others take reference latents."""


def edit_encoding(model: BaseModel, chosen: str = "auto") -> Encode:
    """The way by which source pictures reach this model; "auto" is the usual one of its class."""
    if chosen != "auto":
        return lookup(EDITS, chosen, "edit encoding")
    names = [USUAL[kind.__name__] for kind in type(model).__mro__ if kind.__name__ in USUAL]
    return EDITS[names[0] if names else "reference_latent"]


def encoded(clip: CLIP, vae: VAE, edit: Encode, prompt: str, pictures: Sequence[Tensor]) -> Sample:
    """A prompt that edits these pictures (H, W, 3) in [0, 1], or none, as a sample."""
    with torch.inference_mode():  # as a node runs
        conditioning = edit(clip, vae, prompt, [p[None] for p in pictures]) if pictures else text_only(clip, prompt)
    return sample_of(conditioning)


def _at_most(pictures: Sequence[Tensor], count: int) -> None:
    if len(pictures) > count:
        raise InputError(
            f"a prompt has {len(pictures)} source pictures, but ComfyUI's own node for this model takes at most {count}"
        )
