"""The protocol of a model: every family translates its clock, sign and packing to the core's convention.

x_sigma = (1 - sigma) * clean + sigma * noise, v = noise - clean, sigma falls from 1 to 0, all float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning

COMPONENTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Parts of a pipeline whose weights may come from a file of their own."""
Sources = Sequence[Sequence[Tensor] | None]


class Backbone(Protocol):
    """A flow model with its text encoder and VAE; nothing above knows how it counts time or packs inputs."""

    @property
    def family(self) -> str: ...

    @property
    def network(self) -> nn.Module:
        """The transformer: where adapters go."""
        ...

    @property
    def default_targets(self) -> tuple[str, ...]:
        """Endings of the module names that a fresh LoRA adapts."""
        ...

    @property
    def size_multiple(self) -> int:
        """Widths and heights, of pictures made and of sources, are multiples of this many pixels."""
        ...

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        """dx/dsigma at x (B, ...) and sigma (B,), float32; the network itself runs in its own dtype."""
        ...

    def encode(
        self, prompts: Sequence[str], sources: Sources | None = None, negatives: Sequence[str] = ()
    ) -> Conditioning:
        """One sample a prompt, each with a null for every negative prompt.

        `sources[i]` holds the pictures (H, W, 3) in [0, 1] that prompt i edits; None or empty: text only.
        Samples do not depend on their neighbours in the batch, so they may be cached one by one.
        """
        ...

    def prompt_embeddings(self, cond: Conditioning) -> Tensor:
        """(n, D) float32: one vector for the prompt of each encoded sample, the mean of its text's token embeddings.

        Pictures count only where the text encoder itself sees them.
        """
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """Pictures (B, H, W, 3) in [0, 1] as clean float32 latents of the model's space."""
        ...

    def decode(self, x: Tensor) -> Tensor:
        """Clean latents as pictures (B, H, W, 3) in [0, 1], float32."""
        ...

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        """Shape of one sample's latents, without the batch; InputError if `size_multiple` does not fit."""
        ...

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        """(steps + 1,) float32 from 1 to 0, as the model's scheduler spaces them for this picture size."""
        ...

    def with_network(self, network: nn.Module) -> Backbone:
        """The same backbone around another transformer of its architecture (a full-checkpoint teacher)."""
        ...

    def to(self, device: torch.device | str) -> Backbone:
        """Moves the network and the encoders, in place; returns itself."""
        ...

    def offload_encoders(self, device: torch.device | str = "cpu") -> None:
        """Moves the text encoder and the VAE only; they work wherever they are."""
        ...
