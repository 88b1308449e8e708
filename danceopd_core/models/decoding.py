"""Decodes latents on the device that they are on: whole where that fits, in tiles beyond, else on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from ..algorithm.relief import empty_caches, ran_out_of_memory
from ..listening import heard
from .vaes import Vae

TILE = 512
"""Pixels of a side of a tile."""


def decode_nearby(vae: Vae, latents: Tensor) -> Tensor:
    """Pictures (B, 3, H, W), decoded where the latents are; on a CPU, where the VAE is.

    On another device pictures are decoded one by one, and the VAE goes back to where it was.
    """
    module = vae.module
    if latents.device.type == "cpu":
        return vae.decode(latents.to(module.device, module.dtype))
    pictures = []
    for picture in latents.split(1):
        pictures.append(decode_at(vae, picture, latents.device))
        heard()
    return torch.cat(pictures)


def decode_at(vae: Vae, latents: Tensor, device: torch.device | str) -> Tensor:
    """Pictures (B, 3, H, W), decoded on `device`: in tiles if it has no memory for a whole one, else on the CPU."""
    module = vae.module
    home = module.device
    try:
        for place, tiled in ((device, False), (device, True), ("cpu", False)):
            try:
                with tiles(module) if tiled else nullcontext():
                    module.to(place)
                    return vae.decode(latents.to(place, module.dtype))
            except (RuntimeError, MemoryError) as error:
                if place == "cpu" or not ran_out_of_memory(error):
                    raise
            empty_caches()
    finally:
        module.to(home)
    raise AssertionError("the CPU either decodes or raises")


@contextmanager
def tiles(module: Any) -> Iterator[None]:
    """Inside, a VAE of diffusers decodes tile by tile."""
    # AutoencoderKL takes a tile of the size that it was trained on, which may be the whole picture.
    sizes = {"tile_sample_min_size": TILE, "tile_latent_min_size": TILE // 2 ** (_levels(module) - 1)}
    before = {name: getattr(module, name) for name in sizes if hasattr(module, name)}
    try:
        for name in before:
            setattr(module, name, sizes[name])
        module.enable_tiling()
        yield
    finally:
        module.disable_tiling()
        for name, value in before.items():
            setattr(module, name, value)


def _levels(module: Any) -> int:
    return len(module.config.get("block_out_channels", (0,) * 4))
