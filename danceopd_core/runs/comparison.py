"""Pictures of fields side by side, over one opened model. Knows no ComfyUI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..algorithm.fields import mixed
from ..data.buckets import load_bucket
from ..data.csv_rows import Item
from ..models.registry import open_backbone
from ..models.sampling import sample_pictures
from ..recipe.from_graph import teacher_of
from ..recipe.graph import FieldSpec, ModelSpec, RoutesSpec
from ..recipe.schema import Teacher
from ..shapes import locate
from .node_run import Host
from .session import DTYPES, encode_items, open_teachers


@dataclass(frozen=True)
class Drawing:
    steps: int
    width: int
    height: int
    seed: int
    device: str
    batch: int = 8


def counting(host: Host, total: int) -> Callable[[int, torch.Tensor], None]:
    """What a sampler calls after each of `total` steps: it tells the host, who may stop it there."""
    done = 0

    def step(index: int, x: torch.Tensor) -> None:
        nonlocal done
        done += 1
        host.check()
        host.progress(done, total)

    return step


def draw(
    model: ModelSpec, fields: Mapping[str, FieldSpec], items: Sequence[Item], how: Drawing, host: Host
) -> dict[str, torch.Tensor]:
    """Each field's pictures (n, H, W, 3) in [0, 1] of the items, all from the same noises."""
    teachers: dict[str, Teacher] = {}
    names = {label: teacher_of(field, teachers) for label, field in fields.items()}
    files = {part: Path(file) for part, file in model.components.items()}
    backbone = open_backbone(locate(model.folder), DTYPES[model.dtype], how.device, files, model.quantise)
    backbone.latent_shape(how.width, how.height)
    host.check()
    _, opened = open_teachers(teachers, backbone)
    negatives = sorted({teacher.negative for teacher in teachers.values() if teacher.guidance != 1})
    samples = encode_items(backbone, items, how.width, how.height, negatives)
    total = len(fields) * how.steps * -(-len(items) // how.batch)
    step = counting(host, total)
    found = {}
    for label, name in names.items():
        field = opened[name] if isinstance(name, str) else mixed([(opened[n], w) for n, w in name.items()])
        made = sample_pictures(
            backbone,
            field,
            samples,
            [how.seed + row for row in range(len(items))],
            steps=how.steps,
            width=how.width,
            height=how.height,
            batch=how.batch,
            device=how.device,
            step=step,
        )
        found[label] = torch.cat(list(made)).clamp(0, 1)
    return found


def items_of(prompts: Sequence[str], sources: Sequence[np.ndarray]) -> list[Item]:
    """Every prompt with its source; one prompt serves all sources, one source all prompts."""
    count = max(len(prompts), len(sources))
    return [Item(prompts[i % len(prompts)], sources[i % len(sources)] if sources else None) for i in range(count)]


def items_of_routes(routes: RoutesSpec, each: int, how: Drawing) -> list[Item]:
    """Items of every route's bucket, spread over it so that they are of several kinds."""
    found: list[Item] = []
    for bucket in dict.fromkeys(lane.prompts.bucket for lane in routes.lanes):
        items = load_bucket(bucket, how.seed, how.width, how.height)
        found += items[:: max(1, len(items) // each)][:each]
    return found
