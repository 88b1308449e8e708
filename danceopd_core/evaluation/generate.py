"""The one loop of every benchmark: prompts in fixed batches become pictures in the places of a layout."""

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
from ..runs.encoding import encode_items
from .folder import EvalFolder
from .layouts import BenchmarkPrompt, Files, Layout, as_png


@dataclass(frozen=True)
class GenerationConfig:
    """`width`, `height`: of pictures without a source; those with one keep its size, down to so many `pixels`."""

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
    """One picture to make: a prompt, which of its samples, its file below the folder, its size."""

    asked: BenchmarkPrompt
    sample: int
    path: str
    width: int
    height: int


class GenerationPlan(NamedTuple):
    """`batches` depend on the prompts and settings alone, never on what is finished: an interrupted evaluation then
    goes on with the very batches that it would have had.
    """

    files: tuple[Files, ...]
    batches: tuple[tuple[ImageJob, ...], ...]


def planned(asked: Sequence[BenchmarkPrompt], layout: Layout, how: GenerationConfig, multiple: int) -> GenerationPlan:
    """multiple: what the backbone's widths and heights are multiples of. A batch has pictures of one size."""
    files = tuple(layout(one, how.samples) for one in asked)
    sizes: dict[tuple[int, int], list[ImageJob]] = {}
    for one, own in zip(asked, files, strict=True):
        size = (how.width, how.height) if one.size is None else fitted(*one.size, multiple, how.pixels)
        shots = [ImageJob(one, sample, path, *size) for sample, path in enumerate(own.pictures)]
        sizes.setdefault(size, []).extend(shots)
    batches = [
        tuple(shots[first : first + how.batch]) for shots in sizes.values() for first in range(0, len(shots), how.batch)
    ]
    return GenerationPlan(files, tuple(batches))


def fitted(width: int, height: int, multiple: int, pixels: int) -> tuple[int, int]:
    """The size nearest to a source's whose sides are multiples of `multiple`, with at most so many pixels.

    A side has one multiple at least.
    """
    scale = min(1.0, math.sqrt(pixels / (width * height)))
    sides = [max(1.0, side * scale / multiple) for side in (width, height)]
    wide, high = map(round, sides)
    if wide * high * multiple**2 > pixels:
        wide, high = map(math.floor, sides)
    return wide * multiple, high * multiple


def noise_seed(seed: int, number: int, sample: int) -> int:
    """Of one picture, whatever its neighbours are."""
    return int.from_bytes(hashlib.sha256(f"{seed} {number} {sample}".encode()).digest()[:8], "big") >> 1


def generate(
    backbone: Backbone,
    field: VelocityField,
    plan: GenerationPlan,
    how: GenerationConfig,
    folder: EvalFolder,
    step: Callable[[int, Tensor], None] = lambda index, x: None,
) -> Iterator[ImageJob]:
    """Writes what is not there yet, and yields each picture's shot after that; `step` sees every new state.

    field: unguided. Encoders, VAE and network stay where they are.
    """
    for batch in plan.batches:
        backbone.latent_shape(batch[0].width, batch[0].height)
    folder.begin()
    beside = {path: files.beside for files in plan.files for path in files.pictures}
    for batch in plan.batches:
        for shot in batch:
            for name, make in beside[shot.path].items():
                folder.keep(name, make)
        if not all(folder.has(shot.path) for shot in batch):
            yield from _generate(backbone, field, batch, how, folder, step)


def _generate(
    backbone: Backbone,
    field: VelocityField,
    batch: Sequence[ImageJob],
    how: GenerationConfig,
    folder: EvalFolder,
    step: Callable[[int, Tensor], None],
) -> Iterator[ImageJob]:
    asked = {shot.asked.number: shot.asked for shot in batch}
    items = [Item(one.prompt, one.source() if one.source else None) for one in asked.values()]
    width, height = batch[0].width, batch[0].height
    encoded = encode_items(backbone, items, width, height, [how.negative] if how.guidance != 1 else [])
    rows = list(asked)
    (made,) = sample_pictures(
        backbone,
        guided(field, how.guidance, how.negative),
        encoded.select([rows.index(shot.asked.number) for shot in batch]),
        [noise_seed(how.seed, shot.asked.number, shot.sample) for shot in batch],
        steps=how.steps,
        width=width,
        height=height,
        batch=len(batch),
        device=how.device,
        step=step,
    )
    for shot, picture in zip(batch, made, strict=True):
        if folder.keep(shot.path, partial(as_png, (picture * 255).round().to(torch.uint8).numpy())):
            yield shot
