"""A picture that one field begins and another ends: it tells at which states a teacher has a say."""

from __future__ import annotations

from torch import Tensor

from ...algorithm.fields import Conditioning, VelocityField


def switched(first: VelocityField, then: VelocityField, last: float) -> VelocityField:
    """`first` down to and with the sigma `last`, `then` below it; all of a batch is at one sigma, as in sampling."""

    def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
        # Sigmas of a grid are far apart; the same one may have been rounded on its way.
        return (first if sigma[0].item() > last - 1e-4 else then)(x, sigma, cond)

    return velocity
