"""The embedded model's VAE in ComfyUI's own AutoencoderKL, with every key, and equal outputs."""

from __future__ import annotations

import re
from typing import Any

import torch
from comfy.sd import VAE
from comfy.utils import load_torch_file
from torch import Tensor

from ...danceopd_core.models.part_files import read_settings
from ...danceopd_core.shapes import locate

GROUPS = 32  # of every normalisation in ComfyUI's AutoencoderKL


def shapes_vae() -> VAE:
    """The VAE in float32: pictures in [0, 1], latents of 16 channels, one for 4 x 4 pixels."""
    folder = locate("shapes") / "vae"
    config = read_settings(folder / "config.json")
    weights = load_torch_file(str(folder / "diffusion_pytorch_model.safetensors"), safe_load=True)
    settings = _settings(config)
    vae = VAE(sd=_native(weights, config), config={"params": settings}, dtype=torch.float32)
    vae.latent_channels = config["latent_channels"]
    vae.downscale_ratio = vae.upscale_ratio = 2 ** (len(config["block_out_channels"]) - 1)
    return vae


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    widths = config["block_out_channels"]
    copies = GROUPS // config["norm_num_groups"]
    return {
        "embed_dim": config["latent_channels"],
        "ddconfig": {
            "double_z": True,
            "z_channels": config["latent_channels"],
            "resolution": 64,
            "in_channels": config["in_channels"],
            "out_ch": config["out_channels"],
            "ch": widths[0] * copies,
            "ch_mult": [width // widths[0] for width in widths],
            "num_res_blocks": config["layers_per_block"],
            "attn_resolutions": [],
            "dropout": 0.0,
        },
    }


def _native(weights: dict[str, Tensor], config: dict[str, Any]) -> dict[str, Tensor]:
    """The weights by ComfyUI's names, with hidden channels repeated.

    ComfyUI normalises in 32 groups, the embedded VAE in 8. With every hidden channel four times over, 32 groups hold
    the same channels as 8 did, and a convolution that reads all copies with a quarter of its weight gives the same.
    """
    copies = GROUPS // config["norm_num_groups"]
    state = {_name(name, len(config["block_out_channels"])): tensor for name, tensor in weights.items()}
    outside = {
        "encoder.conv_in": (0, 1),
        "encoder.conv_out": (1, 0),
        "decoder.conv_in": (0, 1),
        "decoder.conv_out": (1, 0),
    }
    repeated = {}
    for name, tensor in state.items():
        reads, gives = outside.get(name.rpartition(".")[0], (1, 1))
        if tensor.ndim == 4:
            tensor = tensor.repeat(copies if gives else 1, copies if reads else 1, 1, 1) / (copies if reads else 1)
        elif gives:
            tensor = tensor.repeat(copies)
        repeated[name] = tensor
    return repeated | _unused(config)


def _unused(config: dict[str, Any]) -> dict[str, Tensor]:
    """What ComfyUI's class has besides, at values that change nothing: attention that adds zero, 1 x 1 identities."""
    channels = config["latent_channels"]
    width = config["block_out_channels"][-1] * (GROUPS // config["norm_num_groups"])
    state = {}
    for side in ("encoder", "decoder"):
        attention = f"{side}.mid.attn_1"
        state |= {f"{attention}.norm.weight": torch.ones(width), f"{attention}.norm.bias": torch.zeros(width)}
        for part in ("q", "k", "v", "proj_out"):
            state |= {
                f"{attention}.{part}.weight": torch.zeros(width, width, 1, 1),
                f"{attention}.{part}.bias": torch.zeros(width),
            }
    for name, size in (("quant_conv", 2 * channels), ("post_quant_conv", channels)):
        state |= {f"{name}.weight": torch.eye(size)[:, :, None, None], f"{name}.bias": torch.zeros(size)}
    return state


def _name(name: str, levels: int) -> str:
    """ComfyUI's name of a weight of diffusers' AutoencoderKL."""
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.", r"down.\1.block.", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0\.", r"down.\1.downsample.", name)
    name = re.sub(r"up_blocks\.(\d+)\.", lambda match: f"up.{levels - 1 - int(match[1])}.", name)
    name = name.replace(".resnets.", ".block.").replace(".upsamplers.0.", ".upsample.")
    name = re.sub(r"mid_block\.block\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", name)
    return name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
