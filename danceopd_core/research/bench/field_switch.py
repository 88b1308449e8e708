"""A field that is one field down to a sigma and another below it."""

from __future__ import annotations

from torch import Tensor

from ...algorithm.fields import Conditioning, VelocityField


def switched(first: VelocityField, second: VelocityField, last_sigma: float) -> VelocityField:
    """`first` down to and including `last_sigma`, `second` below it; all of a batch has one sigma, as in sampling."""

    def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        # The sigmas of a grid differ by far more than the rounding of one of them.
        return (first if sigma[0].item() > last_sigma - 1e-4 else second)(x, sigma, cond)

    return velocity
