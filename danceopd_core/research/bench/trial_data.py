"""Training data of trials: items, their true images, faulty pairs, and targets that teachers generate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ...algorithm.fields import Conditioning, Sample, VelocityField
from ...algorithm.flow import per_sample
from ...models.backbone import Backbone
from ...models.sampling import integrate, seeded_noise
from ...shapes.language import T2I, Caption, Edit, is_held_out, sample_caption, sample_edit
from ...shapes.render import render

Item = Caption | Edit
BATCH = 32
"""Samples per call of the VAE encoder and of teachers."""


def training_items(categories: Sequence[str], count: int, seed: int) -> list[Item]:
    """`count` items, none of them held out, with the categories in turn; a smaller count gives a prefix."""
    rng = np.random.default_rng((seed, 31))
    chosen: list[Item] = []
    while len(chosen) < count:
        category = categories[len(chosen) % len(categories)]
        item = sample_caption(rng, category) if category in T2I else sample_edit(rng, category)
        if not is_held_out(item):
            chosen.append(item)
    return chosen


def target_images(items: Sequence[Item], size: int, seed: int, style: str = "flat") -> list[np.ndarray]:
    """A ground truth image of each item, (size, size, 3) uint8; of a caption, a random scene that it describes."""
    rng = np.random.default_rng((seed, 32))
    scenes = [item.target if isinstance(item, Edit) else item.scene(rng, style) for item in items]
    return [render(scene, size) for scene in scenes]


def with_faults(images: Sequence[np.ndarray], fraction: float, seed: int) -> list[np.ndarray]:
    """The images with a random fraction of them replaced by a different image of another item."""
    wrong = np.random.default_rng((seed, 33)).permutation(len(images))[: round(fraction * len(images))]
    result = list(images)
    for row in wrong:
        others = (images[(row + step) % len(images)] for step in range(1, len(images)))
        result[row] = next(other for other in others if not np.array_equal(other, images[row]))
    return result


def _tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).float() / 255


def encode(backbone: Backbone, items: Sequence[Item], size: int) -> Conditioning:
    """The items' prompts and source images with the null prompt of guidance, on the CPU."""
    images = [[_tensor(render(item.source, size))] if isinstance(item, Edit) else None for item in items]
    return backbone.encode([item.text for item in items], images, [""]).to("cpu")


def encode_images(backbone: Backbone, images: Sequence[np.ndarray]) -> Tensor:
    """(n, ...) clean latents on the CPU."""
    batches = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
    return torch.cat([backbone.encode_image(torch.stack([*map(_tensor, batch)])).cpu() for batch in batches])


def generated_latents(
    backbone: Backbone,
    teacher: VelocityField,
    samples: Conditioning,
    size: int,
    steps: int,
    seed: int,
    device: torch.device,
) -> Tensor:
    """(n, ...) latents that the teacher generates for the samples, on the CPU."""
    sigmas, shape = backbone.sigmas(steps, size, size), backbone.latent_shape(size, size)
    batches = []
    for first in range(0, len(samples), BATCH):
        rows = range(first, min(first + BATCH, len(samples)))
        noise = seeded_noise(shape, [seed * 1_000_003 + 500_000_000 + row for row in rows], device)
        batches.append(integrate(teacher, noise, sigmas, samples.select(list(rows)).to(device)).cpu())
    return torch.cat(batches)


def with_clean(samples: Conditioning, clean: Tensor) -> Conditioning:
    """Samples that carry the latents of their targets, as `flow_matching` needs them."""
    pairs = zip(samples.samples, clean, strict=True)
    return Conditioning(tuple(Sample({**sample.values, "clean": z}, sample.nulls) for sample, z in pairs))


def flow_matching(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
    """The data as a teacher: at x on the line to a sample's target, the velocity noise - clean, without a forward."""
    clean = torch.stack([sample.values["clean"] for sample in cond.samples])  # type: ignore[arg-type, misc]
    return (x - clean) / per_sample(sigma, x)
