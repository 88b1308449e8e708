"""Pictures from a field: the probability-flow ODE from seeded noise to the clean end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..algorithm.fields import Conditioning, VelocityField
from ..algorithm.flow import euler
from .backbone import Backbone


def seeded_noise(shape: Sequence[int], seeds: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
    """One noise (1, *shape) a seed, stacked: a sample's noise does not depend on its neighbours."""
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
    """Clean latents (B, ...) by Euler steps along sigmas (N + 1,), 1 -> 0; `step` sees every new state."""
    x, grid = noise, sigmas.to(noise.device)
    for index in range(len(grid) - 1):
        now, then = grid[index].expand(len(x)), grid[index + 1].expand(len(x))
        x = euler(x, field(x, now, cond), now, then)
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
    """Pictures (b, H, W, 3) in [0, 1] on the CPU, batch by batch in the order of the samples.

    sigmas: (steps + 1,), None: the model's own. `step` sees every new state of every batch.
    """
    sigmas = backbone.sigmas(steps, width, height) if sigmas is None else sigmas
    shape = backbone.latent_shape(width, height)
    for first in range(0, len(samples), batch):
        rows = list(range(first, min(first + batch, len(samples))))
        noise = seeded_noise(shape, [seeds[row] for row in rows], device)
        x = integrate(field, noise, sigmas, samples.select(rows).to(device), step)
        yield backbone.decode(x).cpu()
