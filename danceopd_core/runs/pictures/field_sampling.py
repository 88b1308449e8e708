"""Samples pictures of several velocity fields over one opened model. Without ComfyUI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import torch

from ...algorithm.fields import VelocityField, guided, mixed
from ...data.csv_rows import Item
from ...errors import InputError
from ...listening import listening, work
from ...models.backbone import Backbone
from ...models.sampling import sample_pictures
from ...recipe.from_graph import teacher_of, widget_names
from ...recipe.graph import FieldSpec, ModelSpec
from ...recipe.schema import Teacher
from ...weights.adapters import Adapters
from ...weights.lora import Lora, stacked
from ..encoded.encoding import check_samples, encode_for
from ..live.host import Host, step_counter, told_to
from ..plans.opening import DTYPES, open_teachers
from ..plans.other_models import load_others, open_others
from ..plans.preflight_weights import check_teachers
from ..plans.sources import Weights, graph_source


@dataclass(frozen=True)
class SamplingSettings:
    """steps: of the sampler. width, height: in pixels. seed: item i starts from the noise of seed + i."""

    steps: int
    width: int
    height: int
    seed: int
    device: str
    batch: int = 8


def sample_fields(
    model: ModelSpec,
    fields: Mapping[str, FieldSpec],
    items: Sequence[Item],
    settings: SamplingSettings,
    host: Host,
    stacks: Mapping[str, Sequence[Teacher]] | None = None,
) -> dict[str, torch.Tensor]:
    """By field, the pictures of the items, (n, H, W, 3) in [0, 1]; every field starts from the same noise.

    stacks: fields of the base model with all LoRAs of some teachers on it at once, sampled after the others. InputError
    names widgets instead of recipe keys.
    """
    with widget_names(model.live is not None), listening(told_to(host)):
        return _sample_fields(model, fields, items, settings, host, stacks or {})


def _sample_fields(
    model: ModelSpec,
    fields: Mapping[str, FieldSpec],
    items: Sequence[Item],
    settings: SamplingSettings,
    host: Host,
    stacks: Mapping[str, Sequence[Teacher]],
) -> dict[str, torch.Tensor]:
    teachers: dict[str, Teacher] = {}
    names = {label: teacher_of(field, teachers) for label, field in fields.items()}
    if any(item.conditioning is not None for item in items) and any(t.model for t in teachers.values()):
        raise InputError(
            "prompts: a bucket holds conditioning, which a teacher with a model of its own cannot be asked under: type "
            "prompts here instead"
        )
    check_teachers(model.folder, teachers)
    source = graph_source(model, list(fields.values()))
    backbone = source.open(DTYPES[model.dtype], settings.device)
    size = settings.width, settings.height
    backbone.latent_shape(*size)
    host.check()
    others = open_others(teachers, source, backbone, DTYPES[model.dtype], settings.device, size)
    others = load_others(others, source, DTYPES[model.dtype], settings.device)
    adapters, opened = open_teachers(teachers, backbone, weights=source.weights, others=others)
    ready = {
        label: opened[name] if isinstance(name, str) else mixed([(opened[n], w) for n, w in name.items()])
        for label, name in names.items()
    }
    for label, parts in stacks.items():
        ready[label] = _stacked_field(parts, backbone, adapters, source.weights)
    with work("encoding the prompts", len(items)):
        samples = encode_for(list(teachers.values()), backbone, others, items, *size)
    check_samples(backbone, others, samples, size)
    step = step_counter(host, len(ready) * settings.steps * -(-len(items) // settings.batch))
    images = {}
    for label, field in ready.items():
        batches = sample_pictures(
            backbone,
            field,
            samples,
            [settings.seed + row for row in range(len(items))],
            steps=settings.steps,
            width=settings.width,
            height=settings.height,
            batch=settings.batch,
            device=settings.device,
            step=step,
        )
        images[label] = torch.cat(list(batches)).clamp(0, 1)
    return images


def _stacked_field(
    teachers: Sequence[Teacher], backbone: Backbone, adapters: Adapters, weights: Weights
) -> VelocityField:
    """The base model with the LoRAs of these teachers added, each at its strength, as a chain of Load LoRA adds them.

    Guided as the teachers are, if they all are alike.
    """

    def read(teacher: Teacher) -> Lora:
        lora = weights.read_lora(teacher.lora or "", backbone, adapters.shapes)
        return replace(lora, scale=lora.scale * teacher.strength)

    name = adapters.add_teacher(reduce(stacked, map(read, teachers)))
    field = adapters.field(backbone.velocity, name)
    (guidance, negative), *others = {(teacher.guidance, teacher.negative) for teacher in teachers}
    return field if others else guided(field, guidance, negative)


def paired_items(prompts: Sequence[str], sources: Sequence[np.ndarray]) -> list[Item]:
    """Every prompt with its source picture; one prompt is used with all sources, and one source with all prompts.

    InputError if the numbers do not match.
    """
    if sources and (not prompts or (len(sources) != 1 and len(prompts) not in (1, len(sources)))):
        raise InputError(f"sources: {len(sources)} pictures for {len(prompts)} prompts: give one for all, or one each")
    count = max(len(prompts), len(sources))
    return [Item(prompts[i % len(prompts)], sources[i % len(sources)] if sources else None) for i in range(count)]
