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

from ..backbones import Backbone
from ..data import Item
from ..errors import InputError
from ..fields import VelocityField, guided
from ..run import encode_items
from ..sampling import pictures
from .folder import EvalFolder
from .layouts import Asked, Files, Layout, as_png


@dataclass(frozen=True)
class How:
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


class Shot(NamedTuple):
    """One picture to make: a prompt, which of its samples, its file below the folder, its size."""

    asked: Asked
    sample: int
    path: str
    width: int
    height: int


class Plan(NamedTuple):
    """`batches` depend on the prompts and settings alone, never on what is finished: an interrupted evaluation then
    goes on with the very batches that it would have had.
    """

    files: tuple[Files, ...]
    batches: tuple[tuple[Shot, ...], ...]


def planned(asked: Sequence[Asked], layout: Layout, how: How, multiple: int) -> Plan:
    """multiple: what the backbone's widths and heights are multiples of. A batch has pictures of one size."""
    files = tuple(layout(one, how.samples) for one in asked)
    sizes: dict[tuple[int, int], list[Shot]] = {}
    for one, own in zip(asked, files, strict=True):
        size = (how.width, how.height) if one.size is None else fitted(*one.size, multiple, how.pixels)
        shots = [Shot(one, sample, path, *size) for sample, path in enumerate(own.pictures)]
        sizes.setdefault(size, []).extend(shots)
    batches = [
        tuple(shots[first : first + how.batch]) for shots in sizes.values() for first in range(0, len(shots), how.batch)
    ]
    return Plan(files, tuple(batches))


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


def paint(
    backbone: Backbone,
    field: VelocityField,
    plan: Plan,
    how: How,
    folder: EvalFolder,
    step: Callable[[int, Tensor], None] = lambda index, x: None,
) -> Iterator[Shot]:
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
            yield from _paint(backbone, field, batch, how, folder, step)


def _paint(
    backbone: Backbone,
    field: VelocityField,
    batch: Sequence[Shot],
    how: How,
    folder: EvalFolder,
    step: Callable[[int, Tensor], None],
) -> Iterator[Shot]:
    asked = {shot.asked.number: shot.asked for shot in batch}
    items = [Item(one.prompt, one.source() if one.source else None) for one in asked.values()]
    width, height = batch[0].width, batch[0].height
    encoded = encode_items(backbone, items, width, height, [how.negative] if how.guidance != 1 else [])
    rows = list(asked)
    (made,) = pictures(
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
