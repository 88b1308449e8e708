"""Sampling by hand over a backbone's velocity, as the pipelines are held against it."""

from itertools import pairwise

import numpy as np
import torch
from PIL import Image

PROMPTS = [
    "a red cat",
    "a long prompt, which goes on for many more tokens than the other one of its batch does",
]
NEGATIVE = "blurry"
STEPS = 5


def noise(backbone, width, height, batch):
    return torch.randn(batch, *backbone.latent_shape(width, height), generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def euler(backbone, field, cond, width, height, kept=torch.float32):
    """`kept`: the dtype that most pipelines round steps and states to, which the core never does."""
    x = noise(backbone, width, height, len(cond)).to(kept).float()
    sigmas = backbone.sigmas(STEPS, width, height)
    for sigma, sigma_next in pairwise(sigmas):
        v = field(x, sigma.expand(len(x)), cond)
        x = (x + (sigma_next - sigma) * v.to(kept)).to(kept).float()
    return x


def pictures(*sizes):
    """Sources as the backbone takes them and as PIL images."""
    drawn = [np.random.default_rng(0).integers(0, 256, (h, w, 3), dtype=np.uint8) for w, h in sizes]
    return [torch.from_numpy(array) / 255 for array in drawn], [Image.fromarray(array) for array in drawn]


@torch.no_grad()
def assert_a_batch_is_its_samples(backbone, prompts, sources):
    """Texts and edits in one call answer as each does alone."""
    x = noise(backbone, 64, 64, len(prompts))
    sigma = torch.linspace(0.9, 0.1, len(prompts))
    together = backbone.velocity(x, sigma, backbone.encode(prompts, sources))
    apart = [
        backbone.velocity(x[i : i + 1], sigma[i : i + 1], backbone.encode([prompts[i]], [sources[i]]))
        for i in range(len(prompts))
    ]
    torch.testing.assert_close(together, torch.cat(apart), rtol=0, atol=1e-5)
