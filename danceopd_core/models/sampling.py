"""Samples pictures from a field by the probability-flow ODE, from seeded noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..algorithm.fields import Conditioning, VelocityField
from ..algorithm.flow import euler
from .backbone import Backbone


def seeded_noise(shape: Sequence[int], seeds: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """Standard normal noise (len(seeds), *shape), one row per seed: a sample's noise does not depend on its batch."""
    rows = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).to(device)


@torch.no_grad()
def integrate(
    field: VelocityField,
    noise: Tensor,
    sigmas: Tensor,
    cond: Conditioning,
    step: Callable[[int, Tensor], None] = lambda index, x: None,
) -> Tensor:
    """Clean latents (B, ...) by Euler steps along sigmas (N + 1,), 1 -> 0; `step` is called with every new state."""
    x, sigmas = noise, sigmas.to(noise.device)
    for index in range(len(sigmas) - 1):
        sigma, sigma_next = sigmas[index].expand(len(x)), sigmas[index + 1].expand(len(x))
        x = euler(x, field(x, sigma, cond), sigma, sigma_next)
        step(index, x)
    return x


def sample_pictures(
    backbone: Backbone,
    field: VelocityField,
    samples: Conditioning,
    seeds: Sequence[int],
    *,
    steps: int,
    width: int,
    height: int,
    batch: int = 32,
    device: torch.device | str = "cpu",
    sigmas: Tensor | None = None,
    step: Callable[[int, Tensor], None] = lambda index, x: None,
) -> Iterator[Tensor]:
    """Yields pictures (b, H, W, 3) in [0, 1] on the CPU, batch by batch in the order of the samples.

    sigmas: (steps + 1,), None: the model's own schedule. `step` is called with every new state of every batch.
    """
    sigmas = backbone.sigmas(steps, width, height) if sigmas is None else sigmas
    shape = backbone.latent_shape(width, height)
    for first in range(0, len(samples), batch):
        rows = list(range(first, min(first + batch, len(samples))))
        noise = seeded_noise(shape, [seeds[row] for row in rows], device)
        x = integrate(field, noise, sigmas, samples.select(rows).to(device), step)
        yield backbone.decode(x).cpu()
