"""Measures what a LoRA changes in the answers of a model that it opens."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...algorithm.fields import VelocityField
from ...data.csv_rows import Item
from ...doctor.effect import TIMES, Effect, measured_effect
from ...models.backbone import Backbone
from ...models.sampling import seeded_noise
from ...recipe.from_graph import widget_names
from ...recipe.graph import ModelSpec
from ...recipe.schema import Teacher
from ..encoded.encoding import encode_items
from ..live.host import Host, step_counter
from ..plans.opening import DTYPES, open_teachers, size_or_default
from ..plans.sources import graph_source

PROMPT = "a photograph"
STEPS = 10
"""Of the base model's path."""


def graph_effect(model: ModelSpec, lora: str, items: Sequence[Item], device: str, host: Host) -> list[Effect]:
    """The effect of a LoRA file over a model of the node graph; InputError names widgets."""
    with widget_names(model.live is not None):
        source = graph_source(model, [])
        backbone = source.open(DTYPES[model.dtype], device)
        host.check()
        teachers = {"base": Teacher(), "lora": Teacher(lora=lora)}
        _, fields = open_teachers(teachers, backbone, weights=source.weights)
        size = size_or_default(model.folder, 0, 0)
        return field_effect(backbone, fields["base"], fields["lora"], items, size, device, host)


def field_effect(
    backbone: Backbone,
    base: VelocityField,
    changed: VelocityField,
    items: Sequence[Item],
    size: tuple[int, int],
    device: torch.device | str,
    host: Host | None = None,
) -> list[Effect]:
    """The effect between two fields over an opened model. size: width and height in pixels."""
    step = None if host is None else step_counter(host, STEPS + len(TIMES))
    return measured_effect(
        base,
        changed,
        encode_items(backbone, items, *size).to(device),
        seeded_noise(backbone.latent_shape(*size), range(len(items)), device),
        backbone.sigmas(STEPS, *size),
        (lambda: None) if step is None else lambda: step(0, torch.empty(0)),
    )
