"""The embedded model as a MODEL, CLIP and VAE of ComfyUI, for stock nodes and native runs: nothing is downloaded."""

from __future__ import annotations

import json
import re

import comfy.model_base
import comfy.ops
import comfy.supported_models
import torch
from comfy.latent_formats import LatentFormat
from comfy.ldm.modules.diffusionmodules.mmdit import TimestepEmbedder
from comfy.model_detection import convert_diffusers_mmdit
from comfy.model_management import get_torch_device, unet_offload_device
from comfy.model_patcher import CoreModelPatcher, ModelPatcher
from comfy.utils import detect_layer_quantization, load_torch_file
from torch import Tensor

from ...danceopd_core.models.part_files import read_settings
from ...danceopd_core.shapes import locate
from .shapes_clip import shapes_clip
from .shapes_vae import shapes_vae

__all__ = ["shapes_clip", "shapes_model", "shapes_vae"]

WEIGHTS = "diffusion_pytorch_model.safetensors"
BLOCK_WEIGHT = re.compile(
    r"(layers|context_refiner|noise_refiner)\.\d+\.(attention|feed_forward)\.(qkv|out|w\d)\.weight"
)
"""The layers that quantised files hold in 8 bits."""


class ShapesLatents(LatentFormat):
    """The VAE's latents as they are: one for 4 x 4 pixels."""

    latent_channels = 16
    spacial_downscale_ratio = 4
    # For ComfyUI's previews: three channels of this VAE are the mean colour of their pixels, to 1 %.
    latent_rgb_factors = [
        [0.2136, 0.2147, 0.2140],
        [0.1207, -0.0043, -0.1164],
        [-0.0502, 0.1059, -0.0563],
        *[[0.0, 0.0, 0.0]] * 13,
    ]
    latent_rgb_factors_bias = [0.1025, 0.0933, 0.0836]


class Shapes(comfy.supported_models.ZImage):
    """Z-Image at the embedded model's size."""

    latent_format = ShapesLatents
    # ComfyUI reckons activations by the family's real width, 3840.
    memory_usage_factor = comfy.supported_models.ZImage.memory_usage_factor * 128 / 3840


def shapes_model(part: str = "shapes", weights: str = "float32", disable_dynamic: bool = False) -> ModelPatcher:
    """The transformer; `part` "shapes:realism" is that of the full-checkpoint teacher.

    weights: "float32", "bfloat16", or "fp8", whose attention is as in files named fp8_scaled; the rest is in bfloat16.
    disable_dynamic: as ComfyUI asks a loader for a copy whose weights are not streamed.
    """
    folder = locate("shapes") / "transformer" if part == "shapes" else locate(part)
    config = Shapes(_settings(read_settings(folder / "config.json")))
    state = convert_diffusers_mmdit(load_torch_file(str(folder / WEIGHTS), safe_load=True), "")
    dtype = torch.float32 if weights == "float32" else torch.bfloat16
    config.set_inference_dtype(dtype, None if weights != "fp8" else dtype)
    if weights == "fp8":
        state = scaled_fp8(state)
        config.quant_config = detect_layer_quantization(state, "")
    model = comfy.model_base.Lumina2(config, device=torch.device("cpu"))
    network = model.diffusion_model
    # The only part whose size does not follow from the settings at this width.
    hidden, width = state["t_embedder.mlp.0.weight"].shape[0], state["t_embedder.mlp.2.weight"].shape[0]
    network.t_embedder = TimestepEmbedder(hidden, output_size=width, dtype=dtype, operations=comfy.ops.manual_cast)
    network.load_state_dict(state)
    network.requires_grad_(False).eval()
    patcher = ModelPatcher if disable_dynamic else CoreModelPatcher
    made = patcher(model, load_device=get_torch_device(), offload_device=unet_offload_device())
    made.cached_patcher_init = (shapes_model, (part, weights))
    return made


def scaled_fp8(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the linear layers of the blocks in float8, each with its scale and its mark.

    Those alone whose sides are multiples of 16, as the products of float8 that GPUs have need them.
    """
    quantised = dict(state)
    layout = torch.tensor(list(json.dumps({"format": "float8_e4m3fn"}).encode()), dtype=torch.uint8)
    for name in filter(BLOCK_WEIGHT.fullmatch, state):
        if any(side % 16 for side in state[name].shape):
            continue
        scale = state[name].abs().max() / torch.finfo(torch.float8_e4m3fn).max
        layer = name.removesuffix(".weight")
        quantised[name] = (state[name] / scale).to(torch.float8_e4m3fn)
        quantised |= {f"{layer}.weight_scale": scale, f"{layer}.comfy_quant": layout}
    return quantised


def _settings(config: dict) -> dict:
    """ComfyUI's settings of the network from diffusers' configuration."""
    same = ("in_channels", "dim", "cap_feat_dim", "n_layers", "n_refiner_layers", "n_heads", "n_kv_heads", "norm_eps")
    return {
        **{name: config[name] for name in same},
        "image_model": "lumina2",
        "patch_size": 2,
        "qk_norm": True,
        "axes_dims": list(config["axes_dims"]),
        "axes_lens": list(config["axes_lens"]),
        "rope_theta": config["rope_theta"],
        "ffn_dim_multiplier": int(config["dim"] / 3 * 8) / config["dim"],
        "multiple_of": 1,
        "z_image_modulation": True,
        "time_scale": config["t_scale"],
        "pad_tokens_multiple": 32,
    }
