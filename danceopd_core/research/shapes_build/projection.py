"""The latent space of the embedded model: a linear projection of 4 x 4 patches, the target of its VAE's encoder.

Patches of flat images have few degrees of freedom (a colour and its change across the patch). Their principal
components keep the latents as smooth as pixels, so that a small transformer learns them fast; the encoder of an
unconstrained VAE adds texture to its channels. The decoder learns what the projection discards.
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
        """The principal components of images (n, 3, H, W), divided by the root of their deviations, with unit power.

        Half whitened: the small components, which give the place of an edge in a patch, must stand out from noise.
        """
        points = _patches(x).permute(0, 2, 3, 1).reshape(-1, 3 * FACTOR**2).double()
        mean = points.mean(0)
        variances, vectors = torch.linalg.eigh(torch.cov((points - mean).T))
        top = variances.argsort(descending=True)[:CHANNELS]
        rows = vectors[:, top].T * variances[top, None] ** -0.25
        # The sign of an eigenvector depends on the solver: fix it so that the largest entry is positive.
        rows = rows * torch.sign(rows.gather(1, rows.abs().argmax(1, keepdim=True)))
        power = (variances[top] ** 0.5).mean()
        return cls(mean.float(), (rows / power**0.5).float())

    def __call__(self, x: Tensor) -> Tensor:
        """Images (n, 3, H, W) in [-1, 1] -> latents (n, CHANNELS, H / 4, W / 4)."""
        patches = _patches(x)
        rows, mean = self.rows.to(x.device), self.mean.to(x.device)
        return torch.einsum("nphw,cp->nchw", patches - mean.view(1, -1, 1, 1), rows)

    def invert(self, z: Tensor) -> Tensor:
        """Latents -> their least-squares images, with blurred edges."""
        rows = torch.linalg.pinv(self.rows).to(z.device)
        patches = torch.einsum("nchw,pc->nphw", z, rows) + self.mean.to(z.device).view(1, -1, 1, 1)
        return torch.nn.functional.pixel_shuffle(patches, FACTOR)
