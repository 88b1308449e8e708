"""Flow-matching arithmetic in the core's convention: interpolation, Euler and SDE steps, sigma grids, noise.

x = (1 - sigma) clean + sigma noise, v = dx/dsigma = noise - clean, sigma falls from 1 to 0.
States x are (B, ...), noise levels sigma are (B,), all float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


def per_sample(value: Tensor, like: Tensor) -> Tensor:
    """Reshapes (B,) to broadcast against the (B, ...) of `like`."""
    return value.reshape(-1, *[1] * (like.ndim - 1))


def mean_per_sample(value: Tensor) -> Tensor:
    """The mean over everything but the batch: (B, ...) -> (B,)."""
    return value.flatten(1).mean(1)


def interpolate(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """The state at sigma on the straight line from noise to clean."""
    s = per_sample(sigma, clean)
    return (1 - s) * clean + s * noise


def euler(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """One Euler step of dx/dsigma = v."""
    return x + per_sample(sigma_next - sigma, x) * v


def linear_sigmas(steps: int, shift: float = 1.0) -> Tensor:
    """The (steps + 1,) evenly spaced sigmas from 1 to 0; shift > 1 concentrates them near the noise (SD3, eq. 23)."""
    s = torch.linspace(1, 0, steps + 1)
    return shift * s / (1 + (shift - 1) * s)


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal noise shaped as `like`, drawn on the generator's device: the same values on every device."""
    return sent(torch.randn(like.shape, generator=generator, device=generator.device), like)


def sent(value: Tensor, like: Tensor) -> Tensor:
    """A tensor of the CPU on the device of `like`; on CUDA by way of pinned memory, as the host waits otherwise."""
    if like.is_cuda and not value.is_cuda:
        return value.pin_memory().to(like.device, non_blocking=True)
    return value.to(like.device)


def rows_of(value: Tensor, rows: Sequence[int]) -> Tensor:
    """`value[rows]`, (len(rows), ...), without indices, which would have to be sent to the device first."""
    if list(rows) == list(range(len(value))):
        return value
    return torch.cat([value[row : row + 1] for row in rows])


class Transition(NamedTuple):
    """The Gaussian from which one SDE step samples its next state: mean (B, ...), std (B, 1, ...)."""

    mean: Tensor
    std: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """The log density of x, (B,), averaged over the dimensions, so that one clip range fits all image sizes."""
        z = (x - self.mean) / self.std
        return mean_per_sample(-0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi))


def sde_transition(x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, eta: float) -> Transition:
    """One step of the SDE with the same marginals as the ODE (Flow-GRPO, arXiv 2505.05470, eq. 9).

    The diffusion coefficient g = eta sqrt(sigma / (1 - sigma)) has a pole at sigma = 1; there the denominator uses
    sigma_next instead, as in the official code. For eta -> 0 it becomes the Euler step.
    """
    s, ds = per_sample(sigma, x), per_sample(sigma_next - sigma, x)
    below_pole = torch.where(sigma < 0.9999, sigma, sigma_next)
    g2 = eta**2 * s / (1 - per_sample(below_pole, x))
    mean = x + v * ds + g2 / (2 * s) * (x + (1 - s) * v) * ds
    return Transition(mean, (g2 * -ds).sqrt())
