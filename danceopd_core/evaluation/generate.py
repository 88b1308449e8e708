"""Generates the images of a benchmark's prompts in fixed batches, into the files of its layout."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from ..algorithm.fields import VelocityField, guided
from ..data.csv_rows import Item
from ..errors import InputError
from ..models.backbone import Backbone
from ..models.sampling import sample_pictures
from ..runs.encoded.encoding import encode_items
from .folder import EvalFolder
from .layouts import BenchmarkPrompt, Files, Layout, as_png


@dataclass(frozen=True)
class GenerationConfig:
    """width, height: of images without a source; edits keep their source's size, limited to `pixels`."""

    samples: int = 1
    steps: int = 28
    guidance: float = 1.0
    negative: str = ""
    seed: int = 0
    width: int = 1024
    height: int = 1024
    pixels: int = 1024 * 1024
    batch: int = 4
    device: torch.device | str = "cpu"

    def __post_init__(self) -> None:
        least = {"samples": 1, "steps": 1, "batch": 1, "width": 1, "height": 1, "pixels": 1, "seed": 0, "guidance": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if not value >= low or math.isinf(value):
                raise InputError(f"{name}: {value}: give at least {low}")


class ImageJob(NamedTuple):
    """One image to generate: its prompt, sample number, file below the folder, and size."""

    prompt: BenchmarkPrompt
    sample: int
    path: str
    width: int
    height: int


class GenerationPlan(NamedTuple):
    """batches: depend only on prompts and settings, not on finished files, so that a resumed evaluation has the same
    batches as an uninterrupted one.
    """

    files: tuple[Files, ...]
    batches: tuple[tuple[ImageJob, ...], ...]


def plan_generation(
    prompts: Sequence[BenchmarkPrompt], layout: Layout, config: GenerationConfig, multiple: int
) -> GenerationPlan:
    """multiple: of which the backbone's widths and heights must be. A batch has images of one size."""
    files = tuple(layout(prompt, config.samples) for prompt in prompts)
    sizes: dict[tuple[int, int], list[ImageJob]] = {}
    for prompt, of_prompt in zip(prompts, files, strict=True):
        size = config.width, config.height
        if prompt.size is not None:
            size = fitted_size(*prompt.size, multiple, config.pixels)
        jobs = [ImageJob(prompt, sample, path, *size) for sample, path in enumerate(of_prompt.pictures)]
        sizes.setdefault(size, []).extend(jobs)
    batches = [
        tuple(jobs[first : first + config.batch])
        for jobs in sizes.values()
        for first in range(0, len(jobs), config.batch)
    ]
    return GenerationPlan(files, tuple(batches))


def fitted_size(width: int, height: int, multiple: int, pixels: int) -> tuple[int, int]:
    """The size nearest to the source's whose sides are multiples of `multiple`, at least one, with at most `pixels`."""
    scale = min(1.0, math.sqrt(pixels / (width * height)))
    sides = [max(1.0, side * scale / multiple) for side in (width, height)]
    wide, high = map(round, sides)
    if wide * high * multiple**2 > pixels:
        wide, high = map(math.floor, sides)
    return wide * multiple, high * multiple


def noise_seed(seed: int, number: int, sample: int) -> int:
    """The seed of one image's noise, independent of the batch that it is in."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {sample}".encode()).digest()[:8], "big") >> 1


def generate(
    backbone: Backbone,
    field: VelocityField,
    plan: GenerationPlan,
    config: GenerationConfig,
    folder: EvalFolder,
    step: Callable[[int, Tensor], None] = lambda index, x: None,
) -> Iterator[ImageJob]:
    """Writes the missing files, and yields the job of each image after it is written.

    field: unguided. step: called with the index and state of each sampler step. Models stay on their devices.
    """
    for batch in plan.batches:
        backbone.latent_shape(batch[0].width, batch[0].height)
    folder.begin()
    sidecars = {path: files.sidecars for files in plan.files for path in files.pictures}
    for batch in plan.batches:
        for job in batch:
            for name, content in sidecars[job.path].items():
                folder.keep(name, content)
        if not all(folder.has(job.path) for job in batch):
            yield from _generate(backbone, field, batch, config, folder, step)


def _generate(
    backbone: Backbone,
    field: VelocityField,
    batch: Sequence[ImageJob],
    config: GenerationConfig,
    folder: EvalFolder,
    step: Callable[[int, Tensor], None],
) -> Iterator[ImageJob]:
    by_number = {job.prompt.number: job.prompt for job in batch}
    items = [Item(prompt.prompt, prompt.source() if prompt.source else None) for prompt in by_number.values()]
    width, height = batch[0].width, batch[0].height
    encoded = encode_items(backbone, items, width, height, [config.negative] if config.guidance != 1 else [])
    rows = list(by_number)
    (images,) = sample_pictures(
        backbone,
        guided(field, config.guidance, config.negative),
        encoded.select([rows.index(job.prompt.number) for job in batch]),
        [noise_seed(config.seed, job.prompt.number, job.sample) for job in batch],
        steps=config.steps,
        width=width,
        height=height,
        batch=len(batch),
        device=config.device,
        step=step,
    )
    for job, image in zip(batch, images, strict=True):
        if folder.keep(job.path, partial(as_png, (image * 255).round().to(torch.uint8).numpy())):
            yield job
