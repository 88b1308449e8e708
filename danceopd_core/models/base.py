"""What every family does alike around a diffusers transformer; a family adds its texts, its clock and its sigmas."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, Sample, Value
from ..errors import InputError
from .backbone import Sources
from .registry import FAMILIES
from .sigma_schedule import scheduled
from .vaes import Vae

Made = TypeVar("Made")
Own = TypeVar("Own", bound="DiffusersBackbone")


class Once:
    """Makes each thing once: prompts share negatives, and edits share much of their text."""

    def __init__(self) -> None:
        self._made: dict[Hashable, Any] = {}

    def __call__(self, key: Hashable, make: Callable[[], Made]) -> Made:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


@dataclass(frozen=True, eq=False)
class DiffusersBackbone(ABC):
    """A Backbone but for what its family decides: `velocity`, `sigmas`, `_texts` and which encoders it has."""

    network: nn.Module
    vae: Vae
    scheduler: Any
    dtype: torch.dtype  # of the network's inputs; adapters in float32 do not change it

    family: ClassVar[str]

    @property
    def title(self) -> str:
        """The family's name for people."""
        return FAMILIES[self.family].title

    @property
    def default_targets(self) -> tuple[str, ...]:
        return FAMILIES[self.family].targets

    @property
    @abstractmethod
    def max_sources(self) -> float:
        """How many pictures one prompt may edit."""

    @property
    @abstractmethod
    def _encoders(self) -> tuple[nn.Module, ...]:
        """The text encoders that there are."""

    @abstractmethod
    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor: ...

    @abstractmethod
    def sigmas(self, steps: int, width: int, height: int) -> Tensor: ...

    @abstractmethod
    def _texts(self, prompt: str, pictures: tuple[Tensor, ...], once: Once) -> Mapping[str, Value]:
        """The values of a prompt that edits these pictures (H, W, 3), without their latents."""

    def _source(self, picture: Tensor) -> Tensor:
        """The clean latents (C, h, w) of a source picture, as the network is shown them."""
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
                    f"{prompt!r} has {len(given)}: remove them, or open a model that edits"
                )
        once, samples = Once(), []
        for prompt, given in zip(prompts, pictures, strict=True):
            held: dict[str, Value] = {"sources": tuple(map(self._source, given))} if given else {}
            nulls = {negative: Sample({**self._texts(negative, given, once), **held}) for negative in negatives}
            samples.append(Sample({**self._texts(prompt, given, once), **held}, nulls))
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
        pixels = self.vae.decode(x.to(self.vae.module.device, self.vae.module.dtype)).float()
        return (pixels / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)

    @property
    def size_multiple(self) -> int:
        return 2 * self.vae.factor  # the transformers' patches are 2 x 2 latents

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        if width % self.size_multiple or height % self.size_multiple or min(width, height) <= 0:
            raise InputError(
                f"{self.title} takes no picture of {width} x {height} pixels: "
                f"make width and height multiples of {self.size_multiple}"
            )
        return (self.vae.channels, height // self.vae.factor, width // self.vae.factor)

    def _scheduled(self, width: int, height: int, spacing: Mapping[str, Any]) -> Tensor:
        """The scheduler's sigmas for this spacing, shifted for the picture's tokens if its configuration says so."""
        _, rows, columns = self.latent_shape(width, height)
        return scheduled(self.scheduler, (rows // 2) * (columns // 2), spacing)

    def with_network(self: Own, network: nn.Module) -> Own:
        return replace(self, network=network)

    def to(self: Own, device: torch.device | str) -> Own:
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
        """A value that has the same shape in every sample, as a batch for the network."""
        return torch.stack([self._cast(sample.values[name], x)[0] for sample in cond.samples])


def _embedding(sample: Sample) -> Tensor:
    """(D,): the mean over the tokens of a text, in all its segments, and what the family pools of it, if it does."""
    text = sample.values["text"]
    mean = (text if isinstance(text, Tensor) else torch.cat(text)).float().mean(0)
    pooled = sample.values.get("pooled", ())
    return torch.cat([mean, *(part.float() for part in ((pooled,) if isinstance(pooled, Tensor) else pooled))])


def in_groups(
    alike: Callable[[Sample], Hashable],
    call: Callable[[Tensor, Tensor, Conditioning], Tensor],
    x: Tensor,
    sigma: Tensor,
    cond: Conditioning,
) -> Tensor:
    """`call` on a batch, once for each kind of sample: the networks number image positions once a call."""
    groups: dict[Hashable, list[int]] = {}
    for row, sample in enumerate(cond.samples):
        groups.setdefault(alike(sample), []).append(row)
    if len(groups) == 1:
        return call(x, sigma, cond)
    answers = [call(x[rows], sigma[rows], cond.select(rows)) for rows in groups.values()]
    order = torch.tensor([row for rows in groups.values() for row in rows], device=x.device).argsort()
    return torch.cat(answers)[order]


def source_shapes(sample: Sample) -> tuple[torch.Size, ...]:
    """Samples with the same ones can share a call."""
    return tuple(latents.shape for latents in sample.values.get("sources", ()))


def packed(latents: Tensor) -> Tensor:
    """Latents (B, C, h, w) as tokens (B, h w / 4, 4 C), one for each patch of 2 x 2, row by row."""
    return nn.functional.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpacked(tokens: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `packed` for latents of this height and width."""
    patches = tokens.transpose(1, 2).unflatten(2, (height // 2, width // 2))
    return nn.functional.pixel_shuffle(patches, 2)
