"""The latent space of the embedded model: a linear projection of 4 x 4 patches, which its VAE is trained to be.

Flat pictures need few numbers a patch (its colour, and how that changes across it). Asking the encoder for their
principal components keeps the latents as smooth as pixels, so that a small transformer learns them fast; a VAE left to
itself fills its channels with texture of its own. The decoder learns what the projection leaves out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FACTOR = 4
CHANNELS = 16


def _patches(x: Tensor) -> Tensor:
    """(n, 3, H, W) in [-1, 1] -> (n, 48, H / 4, W / 4)."""
    return torch.nn.functional.pixel_unshuffle(x, FACTOR)


@dataclass(frozen=True)
class Projection:
    """mean (48,), rows (CHANNELS, 48)."""

    mean: Tensor
    rows: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Projection:
        """The principal components of pictures (n, 3, H, W), each scaled by the root of its deviation, to unit power.

        Half whitened: the small components, which say where in a patch an edge lies, must not drown in noise.
        """
        points = _patches(x).permute(0, 2, 3, 1).reshape(-1, 3 * FACTOR**2).double()
        mean = points.mean(0)
        variances, vectors = torch.linalg.eigh(torch.cov((points - mean).T))
        top = variances.argsort(descending=True)[:CHANNELS]
        rows = vectors[:, top].T * variances[top, None] ** -0.25
        # An eigenvector's sign is the solver's whim; the largest entry positive makes it ours.
        rows = rows * torch.sign(rows.gather(1, rows.abs().argmax(1, keepdim=True)))
        power = (variances[top] ** 0.5).mean()
        return cls(mean.float(), (rows / power**0.5).float())

    def __call__(self, x: Tensor) -> Tensor:
        """Pictures (n, 3, H, W) in [-1, 1] as latents (n, CHANNELS, H / 4, W / 4)."""
        patches = _patches(x)
        rows, mean = self.rows.to(x.device), self.mean.to(x.device)
        return torch.einsum("nphw,cp->nchw", patches - mean.view(1, -1, 1, 1), rows)

    def invert(self, z: Tensor) -> Tensor:
        """The least-squares picture of latents: soft at the edges."""
        rows = torch.linalg.pinv(self.rows).to(z.device)
        patches = torch.einsum("nchw,pc->nphw", z, rows) + self.mean.to(z.device).view(1, -1, 1, 1)
        return torch.nn.functional.pixel_shuffle(patches, FACTOR)
