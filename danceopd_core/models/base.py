"""The part of a Backbone that all diffusers families share; a family adds its text encoding, clock and sigmas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, Sample, Value
from ..errors import InputError
from ..listening import one_more
from .backbone import Sources
from .decoding import decode_nearby
from .registry import FAMILIES
from .sigma_schedule import scheduled
from .vaes import Vae, token_pixels

T = TypeVar("T")
Self = TypeVar("Self", bound="DiffusersBackbone")


class EncodingCache:
    """Encodes each text once: prompts share negative prompts, and edits share much of their text."""

    def __init__(self) -> None:
        self._values: dict[Hashable, Any] = {}

    def __call__(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The value of this key, computed on its first use."""
        if key not in self._values:
            self._values[key] = compute()
        return self._values[key]


@dataclass(frozen=True, eq=False)
class DiffusersBackbone(ABC):
    """A Backbone except for what its family defines: `velocity`, `sigmas`, text encoding and its limits."""

    network: nn.Module
    vae: Vae
    scheduler: Any
    dtype: torch.dtype  # of the network's inputs; adapters in float32 do not change it

    family: ClassVar[str]

    @property
    def title(self) -> str:
        """The family's display name."""
        return FAMILIES[self.family].title

    @property
    def default_targets(self) -> tuple[str, ...]:
        return FAMILIES[self.family].targets

    @property
    def max_sources(self) -> float:
        """The number of source pictures that one prompt may have."""
        return 0

    @property
    @abstractmethod
    def _encoders(self) -> tuple[nn.Module, ...]:
        """The text encoders."""

    @property
    def _longest_side(self) -> int | None:
        """The number of patches for which the network has positions along a side; None: any."""
        return None

    @abstractmethod
    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor: ...

    def check(self, cond: Conditioning, width: int, height: int) -> None:
        """Conditioning of a pipeline's own text encoders fits; so only the size is checked."""
        self.latent_shape(width, height)

    @abstractmethod
    def sigmas(self, steps: int, width: int, height: int) -> Tensor: ...

    @abstractmethod
    def _encode_prompt(self, prompt: str, pictures: tuple[Tensor, ...], cache: EncodingCache) -> Mapping[str, Value]:
        """The text values of a prompt that edits these pictures (H, W, 3); the pictures' latents are added later."""

    def _encode_source(self, picture: Tensor) -> Tensor:
        """The clean latents (C, h, w) of a source picture, as the network receives them."""
        return self.encode_image(picture[None])[0]

    @torch.no_grad()
    def encode(
        self, prompts: Sequence[str], sources: Sources | None = None, negatives: Sequence[str] = ()
    ) -> Conditioning:
        pictures = [tuple(given or ()) for given in (sources or [None] * len(prompts))]
        if len(pictures) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts with {len(pictures)} entries of source pictures")
        for prompt, given in zip(prompts, pictures, strict=True):
            if len(given) > self.max_sources:
                raise InputError(
                    f"this {self.title} model edits at most {self.max_sources} source pictures, but the prompt "
                    f"{prompt!r} has {len(given)}: remove them, or use a model that edits"
                )
        cache, samples = EncodingCache(), []
        for prompt, given in zip(prompts, pictures, strict=True):
            latents: dict[str, Value] = {"sources": tuple(map(self._encode_source, given))} if given else {}
            nulls = {
                negative: Sample({**self._encode_prompt(negative, given, cache), **latents}) for negative in negatives
            }
            samples.append(Sample({**self._encode_prompt(prompt, given, cache), **latents}, nulls))
            one_more()
        return Conditioning(tuple(samples))

    def prompt_embeddings(self, cond: Conditioning) -> Tensor:
        return torch.stack([_embedding(sample) for sample in cond.samples])

    @torch.no_grad()
    def encode_image(self, images: Tensor) -> Tensor:
        self.latent_shape(images.shape[2], images.shape[1])
        module = self.vae.module
        return self.vae.encode((images.permute(0, 3, 1, 2) * 2 - 1).to(module.device, module.dtype)).float()

    @torch.no_grad()
    def decode(self, x: Tensor) -> Tensor:
        pixels = decode_nearby(self.vae, x).float()
        return (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    @property
    def size_multiple(self) -> int:
        return token_pixels(type(self.vae.module).__name__, self.vae.factor)

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        if width % self.size_multiple or height % self.size_multiple or min(width, height) <= 0:
            raise InputError(
                f"{self.title} cannot process a picture of {width} x {height} pixels: "
                f"make width and height multiples of {self.size_multiple}"
            )
        if self._longest_side is not None and max(width, height) > self._longest_side * self.size_multiple:
            raise InputError(
                f"this {self.title} model cannot process a picture of {width} x {height} pixels: its sides are "
                f"{self._longest_side * self.size_multiple} at most"
            )
        return (self.vae.channels, height // self.vae.factor, width // self.vae.factor)

    def _scheduled(self, width: int, height: int, spacing: Mapping[str, Any]) -> Tensor:
        """The scheduler's sigmas for this spacing, shifted by picture size if its configuration says so."""
        self.latent_shape(width, height)
        multiple = self.size_multiple
        return scheduled(self.scheduler, (width // multiple) * (height // multiple), spacing)

    def with_network(self: Self, network: nn.Module) -> Self:
        return replace(self, network=network)

    def to(self: Self, device: torch.device | str) -> Self:
        self.network.to(device)
        self.offload_encoders(device)
        return self

    def offload_encoders(self, device: torch.device | str = "cpu") -> None:
        for module in (*self._encoders, self.vae.module):
            module.to(device)

    def _cast(self, value: Value, x: Tensor) -> list[Tensor]:
        parts = (value,) if isinstance(value, Tensor) else value
        return [part.to(x.device, self.dtype) for part in parts]

    def _stacked(self, name: str, cond: Conditioning, x: Tensor) -> Tensor:
        """A value with the same shape in every sample, as a batch for the network."""
        return torch.stack([self._cast(sample.values[name], x)[0] for sample in cond.samples])


@dataclass(frozen=True, eq=False)
class OneTextEncoder(DiffusersBackbone):
    """What the families with one text encoder share."""

    text_encoder: Any
    tokenizer: Any

    @property
    def _encoders(self) -> tuple[nn.Module, ...]:
        return (self.text_encoder,)


def _embedding(sample: Sample) -> Tensor:
    """(D,): the mean over all tokens of a text, followed by the pooled embedding if the family has one."""
    text = sample.values["text"]
    mean = (text if isinstance(text, Tensor) else torch.cat(text)).float().mean(0)
    pooled = sample.values.get("pooled", ())
    return torch.cat([mean, *(part.float() for part in ((pooled,) if isinstance(pooled, Tensor) else pooled))])
