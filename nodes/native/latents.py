"""The latent space of a MODEL: shapes, and the VAE's latents in the units that the network is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfy.model_base import BaseModel
from comfy.sd import VAE
from torch import Tensor

from ...danceopd_core.errors import InputError


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """x = (1 - sigma) clean + sigma noise with noise of deviation 1, in units of the network over `noise_scale`.

    noise_scale: the deviation of the noise as the MODEL's sampling counts it, which ComfyUI scales the noise by.
    process_in, process_out: from the VAE's latents to the network's, and back. patch: latents a token, each way.
    """

    title: str
    channels: int
    dimensions: int
    ratio: int
    patch: int
    noise_scale: float
    process_in: Callable[[Tensor], Tensor]
    process_out: Callable[[Tensor], Tensor]

    @property
    def size_multiple(self) -> int:
        """Widths and heights are multiples of this many pixels."""
        return self.ratio * self.patch

    def shape(self, width: int, height: int) -> tuple[int, ...]:
        """(C, h, w), or (C, 1, h, w) where the format has a time axis; InputError if the size does not fit."""
        if width % self.size_multiple or height % self.size_multiple or min(width, height) <= 0:
            raise InputError(
                f"{self.title} takes no picture of {width} x {height} pixels: "
                f"make width and height multiples of {self.size_multiple}"
            )
        time = (1,) * (self.dimensions - 2)
        return (self.channels, *time, height // self.ratio, width // self.ratio)

    def encode(self, vae: VAE, images: Tensor) -> Tensor:
        """Pictures (B, H, W, 3) in [0, 1] as clean latents (B, *shape), float32."""
        # One by one: ComfyUI reads a batch as the frames of one video where the format has a time axis.
        return torch.cat([self.process_in(raw_latents(vae, image[None])) for image in images]) / self.noise_scale

    def decode(self, vae: VAE, x: Tensor) -> Tensor:
        """Clean latents as pictures (B, H, W, 3) in [0, 1], float32."""
        with torch.inference_mode():
            pictures = vae.decode(self.process_out(x.float() * self.noise_scale))
        if pictures.ndim == 5:  # frames of a video
            pictures = pictures[:, 0]
        return pictures.float().clamp(0, 1).clone()


def raw_latents(vae: VAE, image: Tensor) -> Tensor:
    """One picture (1, H, W, 3) as the latents of the VAE, before any scaling; a tensor that can be trained on."""
    with torch.inference_mode():
        latents = vae.encode(image)
    return latents.clone().float()


def latent_space(model: BaseModel, sampling: object, title: str) -> LatentSpace:
    """The latent space of a flow MODEL."""
    latent_format = model.latent_format
    return LatentSpace(
        title,
        latent_format.latent_channels,
        latent_format.latent_dimensions,
        latent_format.spacial_downscale_ratio,
        _patch(model),
        float(vars(sampling).get("noise_scale", 1.0)),
        model.process_latent_in,
        model.process_latent_out,
    )


def check_vae(space: LatentSpace, vae: VAE) -> None:
    """InputError if the VAE has another latent space."""
    found = (vae.latent_channels, vae.spacial_compression_encode())
    if found != (space.channels, space.ratio):
        raise InputError(
            f"the VAE makes latents of {found[0]} channels, one for {found[1]} x {found[1]} pixels, but {space.title} "
            f"needs {space.channels} channels, one for {space.ratio} x {space.ratio}: load the VAE of the MODEL"
        )
    if space.dimensions == 3 and vae.latent_dim != 3:
        raise InputError(
            f"the VAE has no time axis, but {space.title} needs one of videos, where a picture is one frame: load the "
            "VAE of the MODEL"
        )


def _patch(model: BaseModel) -> int:
    """Latents that one token of the network spans in width; networks pad what does not divide."""
    patch = vars(model.diffusion_model).get("patch_size", 2)
    return int(patch[-1] if isinstance(patch, tuple | list) else patch)
