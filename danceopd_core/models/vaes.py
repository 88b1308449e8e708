"""The VAEs of the model families: pictures to normalised latents, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

FACTORS: dict[str, Callable[[Mapping[str, Any]], int]] = {
    "AutoencoderKL": lambda config: 2 ** (len(config["block_out_channels"]) - 1),
    "AutoencoderKLFlux2": lambda config: 2 ** len(config["block_out_channels"]),  # of a patch of 2 x 2
    "AutoencoderKLQwenImage": lambda config: 2 ** len(config["temperal_downsample"]),
    "AutoencoderKLQwenImage21": lambda config: 2 ** (len(config["dim_mult"]) - 1),
}
"""Spatial compression, in pixels per latent, by VAE class: a function of its configuration."""
PATCHED = ("AutoencoderKLFlux2",)
"""VAEs whose latents are patches already: each is a token of its network, and may stand alone. Of the others a patch of
2 x 2 latents is a token, or, with AutoencoderKLQwenImage21, 4 tokens of which its network takes no fewer."""


def token_pixels(name: str, factor: int) -> int:
    """The pixels of a side that picture sizes are multiples of, for the VAE class of this name and compression."""
    return factor * (1 if name in PATCHED else 2)


class Vae(Protocol):
    """Encodes pictures (B, 3, H, W) in [-1, 1] to latents (B, channels, H / factor, W / factor), and decodes them."""

    @property
    def module(self) -> Any: ...

    @property
    def factor(self) -> int:
        """Spatial compression, in pixels per latent."""
        ...

    @property
    def channels(self) -> int: ...

    def encode(self, pixels: Tensor) -> Tensor:
        """The mode of the latent distribution, not a random draw, so that encoding is deterministic."""
        ...

    def decode(self, latents: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class KlVae:
    """diffusers' AutoencoderKL; latents are normalised by one shift and scale."""

    module: Any

    @property
    def factor(self) -> int:
        return FACTORS["AutoencoderKL"](self.module.config)

    @property
    def channels(self) -> int:
        return self.module.config.latent_channels

    def encode(self, pixels: Tensor) -> Tensor:
        config = self.module.config
        return (self.module.encode(pixels).latent_dist.mode() - config.shift_factor) * config.scaling_factor

    def decode(self, latents: Tensor) -> Tensor:
        config = self.module.config
        return self.module.decode(latents / config.scaling_factor + config.shift_factor, return_dict=False)[0]


@dataclass(frozen=True, eq=False)
class PatchedVae:
    """diffusers' AutoencoderKLFlux2; patches of 2 x 2 latents are normalised by channel, and are the latents here."""

    module: Any

    @property
    def factor(self) -> int:
        return FACTORS["AutoencoderKLFlux2"](self.module.config)

    @property
    def channels(self) -> int:
        return 4 * self.module.config.latent_channels

    def encode(self, pixels: Tensor) -> Tensor:
        latents = pixel_unshuffle(self.module.encode(pixels).latent_dist.mode(), 2)
        mean, std = self._statistics(latents)
        return (latents - mean) / std

    def decode(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return self.module.decode(pixel_shuffle(latents * std + mean, 2), return_dict=False)[0]

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        mean, variance = (part.view(1, -1, 1, 1) for part in (self.module.bn.running_mean, self.module.bn.running_var))
        std = (variance + self.module.config.batch_norm_eps).sqrt()
        return mean.to(like.device, like.dtype), std.to(like.device, like.dtype)


@dataclass(frozen=True, eq=False)
class VideoVae:
    """diffusers' AutoencoderKLQwenImage: a picture is one frame; latents are normalised by channel."""

    module: Any

    @property
    def factor(self) -> int:
        return FACTORS["AutoencoderKLQwenImage"](self.module.config)

    @property
    def channels(self) -> int:
        return self.module.config.z_dim

    def encode(self, pixels: Tensor) -> Tensor:
        latents = self.module.encode(pixels.unsqueeze(2)).latent_dist.mode()
        mean, std = self._statistics(latents)
        return ((latents - mean) / std).squeeze(2)

    def decode(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        return self.module.decode(latents.unsqueeze(2) / (1 / std) + mean, return_dict=False)[0].squeeze(2)

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        config = self.module.config
        mean, std = (
            torch.tensor(values).to(like.device, like.dtype).view(1, -1, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        return mean, std


@dataclass(frozen=True, eq=False)
class RgbaVae(VideoVae):
    """diffusers' AutoencoderKLQwenImage21 of pictures with alpha: ours are opaque, those it makes are put on white."""

    @property
    def factor(self) -> int:
        return FACTORS["AutoencoderKLQwenImage21"](self.module.config)

    def encode(self, pixels: Tensor) -> Tensor:
        return super().encode(torch.cat([pixels, torch.ones_like(pixels[:, :1])], 1))

    def decode(self, latents: Tensor) -> Tensor:
        mean, std = self._statistics(latents)
        decoded = self.module.decode(latents.unsqueeze(2) * std + mean, return_dict=False)[0].squeeze(2)
        alpha = decoded[:, 3:] / 2 + 0.5  # the VAE clamps it
        return decoded[:, :3] * alpha + (1 - alpha)
