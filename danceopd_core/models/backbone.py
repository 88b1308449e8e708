"""The Backbone protocol: every model family translates its timestep, sign and packing to the core's convention.

x_sigma = (1 - sigma) * clean + sigma * noise, v = noise - clean, sigma falls from 1 to 0, all float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning

COMPONENTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3")
"""Parts of a pipeline whose weights may come from a single file."""
Sources = Sequence[Sequence[Tensor] | None]
"""The source pictures of each prompt; None or empty: text only."""


class Backbone(Protocol):
    """A flow model with its text encoders and VAE; its timesteps and input packing are private to it."""

    @property
    def family(self) -> str: ...

    @property
    def network(self) -> nn.Module:
        """The transformer, into which adapters are injected."""
        ...

    @property
    def default_targets(self) -> tuple[str, ...]:
        """Module-name endings of the layers that a fresh LoRA adapts."""
        ...

    @property
    def size_multiple(self) -> int:
        """Widths and heights, of generated and source pictures, are multiples of this many pixels."""
        ...

    def velocity(self, x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        """dx/dsigma at x (B, ...) and sigma (B,), float32; the network computes in its own dtype."""
        ...

    def encode(
        self, prompts: Sequence[str], sources: Sources | None = None, negatives: Sequence[str] = ()
    ) -> Conditioning:
        """One sample per prompt, each with a null for every negative prompt.

        `sources[i]` holds the pictures (H, W, 3) in [0, 1] that prompt i edits; None or empty: text only.
        A sample does not depend on others in the batch, so samples may be cached individually.
        """
        ...

    def check(self, cond: Conditioning, width: int, height: int) -> None:
        """InputError unless the network can be asked under this conditioning, for pictures of this size in pixels.

        The faults belong to the settings model.clip or model.
        """
        ...

    def prompt_embeddings(self, cond: Conditioning) -> Tensor:
        """(n, D) float32: for each encoded sample the mean of its token embeddings.

        Source pictures have an influence only if the text encoder itself sees them.
        """
        ...

    def encode_image(self, images: Tensor) -> Tensor:
        """Encodes pictures (B, H, W, 3) in [0, 1] as clean float32 latents."""
        ...

    def decode(self, x: Tensor) -> Tensor:
        """Decodes clean latents to pictures (B, H, W, 3) in [0, 1], float32."""
        ...

    def latent_shape(self, width: int, height: int) -> tuple[int, ...]:
        """Shape of one sample's latents, without the batch; InputError unless `size_multiple` divides both."""
        ...

    def sigmas(self, steps: int, width: int, height: int) -> Tensor:
        """(steps + 1,) float32 from 1 to 0, the model's own schedule for this picture size."""
        ...

    def with_network(self, network: nn.Module) -> Backbone:
        """The same backbone with another transformer of its architecture (a full-checkpoint teacher)."""
        ...

    def to(self, device: torch.device | str) -> Backbone:
        """Moves the network and the encoders, in place; returns itself."""
        ...

    def offload_encoders(self, device: torch.device | str = "cpu") -> None:
        """Moves only the text encoders and the VAE, which work on any device."""
        ...
