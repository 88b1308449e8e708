"""The singular values of the layers of a LoRA, from its factors: the product, as large as the layer, is never made."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

USED = 1e-6
"""A direction counts as used if its singular value is at least this part of the layer's largest."""


@dataclass(frozen=True)
class LayerSpectrum:
    """A layer's change of its weight, scale * up @ down. values: its singular values, largest first; none if the
    factors hold NaN or infinity. rank: of the factors."""

    module: str
    rank: int
    values: tuple[float, ...]

    @property
    def broken(self) -> bool:
        """Whether a factor holds NaN or infinity."""
        return not self.values

    @property
    def norm(self) -> float:
        """The Frobenius norm of the change."""
        return sum(value**2 for value in self.values) ** 0.5

    @property
    def top(self) -> float:
        """The largest singular value."""
        return self.values[0] if self.values else 0.0

    @property
    def share(self) -> float:
        """The part of the squared norm that the largest singular value has; 0 for a layer that changes nothing."""
        return (self.top / self.norm) ** 2 if self.norm else 0.0

    @property
    def used(self) -> int:
        """How many directions the change has."""
        return sum(value > self.top * USED for value in self.values) if self.top else 0

    @property
    def effective(self) -> float:
        """Over how many directions the squared norm is spread, 1 to rank: (sum s^2)^2 / sum s^4."""
        return self.norm**4 / sum(value**4 for value in self.values) if self.norm else 0.0


def layer_spectrum(module: str, down: Tensor, up: Tensor, scale: float = 1.0) -> LayerSpectrum:
    """down: (rank, in, ...), up: (out, rank, ...); kernels of convolutions count as one matrix. In float64."""
    down, up = down.detach().double().flatten(1), up.detach().double().flatten(1)
    if not (torch.isfinite(down).all() and torch.isfinite(up).all()):
        return LayerSpectrum(module, len(down), ())
    # By Gram matrices, at half the time of QR: a value is exact to 1e-8 of the largest, and USED asks for 1e-6.
    squares, vectors = torch.linalg.eigh(down @ down.T)
    half = vectors * squares.clamp(min=0).sqrt()
    values = torch.linalg.eigvalsh(half.T @ (up.T @ up) @ half).clamp(min=0).sqrt().flip(0) * abs(scale)
    return LayerSpectrum(module, len(down), tuple(values.tolist()))
