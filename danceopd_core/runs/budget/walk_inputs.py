"""What a walk asks a family's network and VAE with: inputs of the right shapes on the meta device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...algorithm.fields import Conditioning, Sample, Value
from ...errors import InputError
from ...models.flux import Flux
from ...models.flux2 import TOKENS as KLEIN_TOKENS
from ...models.flux2 import Flux2Klein
from ...models.krea2 import Krea2
from ...models.qwen import EDITING, QwenImage
from ...models.qwen21 import QwenImage21
from ...models.registry import FAMILIES
from ...models.sd3 import StableDiffusion3
from ...models.vaes import FACTORS, KlVae, PatchedVae, RgbaVae, Vae, VideoVae
from ...models.zimage import ZImage
from ...weights.adapters import Adapters
from ...weights.lora import Lora, fresh_lora
from .walk import recomputed, walked

TOKENS = 200
"""Of a prompt, in the families that do not pad their texts to one length."""
SEEN = 196
"""Tokens of a source picture in the text of a Qwen-Image edit."""
VAES: dict[str, Callable[[Any], Vae]] = {
    "AutoencoderKL": KlVae,
    "AutoencoderKLFlux2": PatchedVae,
    "AutoencoderKLQwenImage": VideoVae,
    "AutoencoderKLQwenImage21": RgbaVae,
}


class Pass(NamedTuple):
    """What is walked. channels, factor: of the VAE. dtype: of the network's inputs. edit: with one source picture."""

    pipeline: str
    network: nn.Module
    channels: int
    factor: int
    dtype: torch.dtype
    width: int
    height: int
    edit: bool = False


def update_bytes(of: Pass, lora: Lora, checkpointing: bool) -> int:
    """The most that one sample's forward and backward pass hold beside the weights, the student's gradients included.

    The network gets the LoRA as its student, and loses it after.
    """
    adapters = Adapters(of.network)
    adapters.start_student(lora)
    try:
        if checkpointing:
            of.network.enable_gradient_checkpointing(recomputed)  # type: ignore[operator]
        return walked(lambda: _velocity(of), train=True)
    finally:
        adapters.remove()
        of.network.disable_gradient_checkpointing()  # type: ignore[operator]


def decode_bytes(vae: nn.Module, of: Pass) -> int:
    """The most that decoding one picture holds beside the weights of the VAE."""
    latents = _empty(of.dtype, 1, of.channels, of.height // of.factor, of.width // of.factor)
    return walked(lambda: VAES[type(vae).__name__](vae).decode(latents), train=False)


def encode_bytes(vae: nn.Module, of: Pass) -> int:
    """The most that encoding one picture holds beside the weights of the VAE."""
    pixels = _empty(of.dtype, 1, 3, of.height, of.width)
    return walked(lambda: VAES[type(vae).__name__](vae).encode(pixels), train=False)


def latent_channels(vae: nn.Module) -> int:
    return VAES[type(vae).__name__](vae).channels


def compression(cls: str, config: Mapping[str, Any]) -> int:
    """Pixels per latent."""
    if cls not in FACTORS:
        raise InputError(f"a VAE of the class {cls} is of no family: there are {', '.join(FACTORS)}")
    return FACTORS[cls](config)


def shapeless_lora(shapes: Mapping[str, tuple[int, int]], rank: int, targets: tuple[str, ...]) -> Lora:
    """A LoRA of this rank on the meta device; InputError for targets that match no layer."""
    layers = fresh_lora(shapes, 1, 1, targets, torch.Generator()).down
    down = {module: torch.empty(rank, shapes[module][1], device="meta") for module in layers}
    return Lora(down, {module: torch.empty(shapes[module][0], rank, device="meta") for module in layers})


def asked(of: Pass) -> tuple[Any, dict[str, Value]]:
    """The family's velocity over the network of a pass, and the values of a sample on the meta device."""
    return INPUTS[next(name for name, row in FAMILIES.items() if of.pipeline in row.pipelines)](of)


def _velocity(of: Pass) -> Tensor:
    backbone, values = asked(of)
    noise = _empty(torch.float32, 1, of.channels, of.height // of.factor, of.width // of.factor)
    sigma = torch.ones(1, device="meta")
    return backbone(noise, sigma, Conditioning((Sample(values),)))


def _sources(of: Pass) -> dict[str, Value]:
    side = of.channels, of.height // of.factor, of.width // of.factor
    return {"sources": (_empty(of.dtype, *side),)} if of.edit else {}


def _zimage(of: Pass) -> tuple[Any, dict[str, Value]]:
    width = _config(of).cap_feat_dim
    text = partial(_empty, of.dtype)
    backbone = ZImage(of.network, _no_vae(), None, of.dtype, None, None)
    return backbone.velocity, {
        "text": (text(8, width), text(TOKENS, width), text(4, width)) if of.edit else text(TOKENS, width),
        **_sources(of),
    }


def _sd3(of: Pass) -> tuple[Any, dict[str, Value]]:
    backbone = StableDiffusion3(of.network, _no_vae(), None, of.dtype, (), None)
    return backbone.velocity, _text_and_pooled(of, 77 + 256)


def _flux(of: Pass) -> tuple[Any, dict[str, Value]]:
    backbone = Flux(of.network, _no_vae(), None, of.dtype, of.edit, None, None, None, None)
    return backbone.velocity, {**_text_and_pooled(of, 512), **_sources(of)}


def _flux2(of: Pass) -> tuple[Any, dict[str, Value]]:
    backbone = Flux2Klein(of.network, _no_vae(), None, of.dtype, None, None)
    return backbone.velocity, {"text": _empty(of.dtype, KLEIN_TOKENS, _config(of).joint_attention_dim), **_sources(of)}


def _qwen(of: Pass) -> tuple[Any, dict[str, Value]]:
    backbone = QwenImage(of.network, _no_vae(), None, of.dtype, None, None, EDITING[of.pipeline], None)
    tokens = TOKENS + SEEN * of.edit
    return backbone.velocity, {"text": _empty(of.dtype, tokens, _config(of).joint_attention_dim), **_sources(of)}


def _krea2(of: Pass) -> tuple[Any, dict[str, Value]]:
    backbone = Krea2(of.network, _no_vae(), None, of.dtype, None, None, False, ())
    config = _config(of)
    return backbone.velocity, {"text": _empty(of.dtype, TOKENS, config.num_text_layers * config.text_hidden_dim)}


def _qwen21(of: Pass) -> tuple[Any, dict[str, Value]]:
    text = _empty(of.dtype, TOKENS, _config(of).context_in_dim)
    backbone = QwenImage21(of.network, _no_vae(), None, of.dtype, None, None, None)
    return backbone.velocity, {"text": (text[:4], text) if of.edit else text, **_sources(of)}


INPUTS: dict[str, Callable[[Pass], tuple[Any, dict[str, Value]]]] = {
    "zimage": _zimage,
    "sd3": _sd3,
    "flux": _flux,
    "flux2": _flux2,
    "qwen": _qwen,
    "krea2": _krea2,
    "qwen21": _qwen21,
}


def _text_and_pooled(of: Pass, tokens: int) -> dict[str, Value]:
    config = _config(of)
    text = _empty(of.dtype, tokens, config.joint_attention_dim)
    return {"text": text, "pooled": _empty(of.dtype, config.pooled_projection_dim)}


def _config(of: Pass) -> Any:
    return of.network.config


def _no_vae() -> Any:
    """A walk of the network never asks the VAE."""
    return None


def _empty(dtype: torch.dtype, *shape: int) -> Tensor:
    return torch.empty(*shape, dtype=dtype, device="meta")
