"""What the cells learn from: training items of the world, their true pictures, wrong ones, and those of teachers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...algorithm.fields import Conditioning, Sample, VelocityField
from ...algorithm.flow import per_sample
from ...models.backbone import Backbone
from ...models.sampling import integrate, seeded_noise
from ...shapes.language import T2I, Caption, Edit, held_out, sample_caption, sample_edit
from ...shapes.render import render

Item = Caption | Edit
GROUP = 32  # samples at a time through encoders and teachers


def training_items(categories: Sequence[str], count: int, seed: int) -> list[Item]:
    """`count` items that no exam asks, the categories in turn; the first n are those of a smaller count."""
    rng = np.random.default_rng((seed, 31))
    found: list[Item] = []
    while len(found) < count:
        category = categories[len(found) % len(categories)]
        item = sample_caption(rng, category) if category in T2I else sample_edit(rng, category)
        if not held_out(item):
            found.append(item)
    return found


def targets(items: Sequence[Item], size: int, seed: int, style: str = "flat") -> list[np.ndarray]:
    """A true picture of each item, (size, size, 3) uint8; of a caption, one of the scenes that it describes."""
    rng = np.random.default_rng((seed, 32))
    scenes = [item.target if isinstance(item, Edit) else item.scene(rng, style) for item in items]
    return [render(scene, size) for scene in scenes]


def with_faults(pictures: Sequence[np.ndarray], share: float, seed: int) -> list[np.ndarray]:
    """The pictures, but for that share of them, at random, each of which is another one's that differs from it."""
    wrong = np.random.default_rng((seed, 33)).permutation(len(pictures))[: round(share * len(pictures))]
    found = list(pictures)
    for row in wrong:
        others = (pictures[(row + step) % len(pictures)] for step in range(1, len(pictures)))
        found[row] = next(other for other in others if not np.array_equal(other, pictures[row]))
    return found


def tensor(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).float() / 255


def encode(backbone: Backbone, items: Sequence[Item], size: int) -> Conditioning:
    """The items' texts and source pictures, each with the null of guidance; on the CPU."""
    sources = [[tensor(render(item.source, size))] if isinstance(item, Edit) else None for item in items]
    return backbone.encode([item.text for item in items], sources, [""]).to("cpu")


def latents(backbone: Backbone, pictures: Sequence[np.ndarray]) -> Tensor:
    """(n, ...) clean latents on the CPU."""
    groups = [pictures[first : first + GROUP] for first in range(0, len(pictures), GROUP)]
    return torch.cat([backbone.encode_image(torch.stack([*map(tensor, group)])).cpu() for group in groups])


def drawn(
    backbone: Backbone,
    teacher: VelocityField,
    samples: Conditioning,
    size: int,
    steps: int,
    seed: int,
    device: torch.device,
) -> Tensor:
    """The latents of the teacher's own picture of each sample, (n, ...) on the CPU."""
    sigmas, shape = backbone.sigmas(steps, size, size), backbone.latent_shape(size, size)
    found = []
    for first in range(0, len(samples), GROUP):
        rows = range(first, min(first + GROUP, len(samples)))
        noise = seeded_noise(shape, [seed * 1_000_003 + 500_000_000 + row for row in rows], device)
        found.append(integrate(teacher, noise, sigmas, samples.select(list(rows)).to(device)).cpu())
    return torch.cat(found)


def with_clean(samples: Conditioning, clean: Tensor) -> Conditioning:
    """Samples that carry their targets' latents, for `flow_matching`."""
    pairs = zip(samples.samples, clean, strict=True)
    return Conditioning(tuple(Sample({**sample.values, "clean": z}, sample.nulls) for sample, z in pairs))


def flow_matching(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
    """The data as a teacher: on the line to a sample's target, the velocity noise - clean, at no forward's cost."""
    clean = torch.stack([sample.values["clean"] for sample in cond.samples])  # type: ignore[arg-type, misc]
    return (x - clean) / per_sample(sigma, x)
