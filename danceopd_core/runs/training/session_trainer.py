"""The Trainer over what was opened of a recipe: its routes, their teachers and buckets."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ...algorithm.fields import VelocityField, mixed
from ...algorithm.held_out import ENOUGH
from ...algorithm.in_step import InStep
from ...algorithm.routers import router
from ...algorithm.trainer import ProcessGroup, RouteData, Trainer
from ...models.backbone import Backbone
from ...models.sigma_schedule import path_sigmas
from ...recipe.schema import Route
from ...weights.adapters import STUDENT, Adapters
from ..budget.relief import LadderDown
from ..encoded.encoding import EncodedBuckets
from ..plans.planning import RunPlan, schedule_of, settings_of

LOSS_SCALE = 2.0**16
"""Of the gradients of a network in float16, whose smallest number is 6e-8."""


def build_trainer(
    plan: RunPlan,
    backbone: Backbone,
    adapters: Adapters,
    fields: Mapping[str, VelocityField],
    encoded: EncodedBuckets,
    processes: ProcessGroup | None,
    device: torch.device,
    relief: LadderDown | None,
    micro_batch: int,
    in_step: InStep | None,
) -> Trainer:
    """The trainer of a run. fields: every teacher by its name, and the student as STUDENT. encoded: the buckets of the
    routes. relief, micro_batch, in_step: as the Trainer takes them.
    """
    recipe = plan.recipe
    size = recipe.path_steps, recipe.width, recipe.height
    return Trainer(
        adapters,
        fields[STUDENT],
        [
            RouteData(route.name, _route_field(route, fields), bucket.samples, bucket.clean, bucket.sizes)
            for route, bucket in zip(recipe.routes, encoded.buckets, strict=True)
        ],
        router(recipe.router, [route.weight for route in recipe.routes]),
        plan.method,
        path_sigmas(schedule_of(recipe), size[0], lambda: backbone.sigmas(*size)),
        backbone.latent_shape(recipe.width, recipe.height),
        settings_of(recipe),
        device=device,
        anchor=adapters.field(backbone.velocity, None) if recipe.anchor else None,
        processes=processes,
        relief=relief,
        micro_batch=micro_batch,
        loss_scale=LOSS_SCALE if recipe.dtype == "float16" else 1.0,
        in_step=in_step,
        latent_shapes=[backbone.latent_shape(*size) for size in encoded.sizes],
    )


def measured_on(trainer: Trainer) -> list[str]:
    """A line for each route of which no prompts are held out although the recipe says so."""
    if not trainer.settings.held_out:
        return []
    few = [route.name for route, held in zip(trainer.routes, trainer.held, strict=True) if not held]
    return [f"{name}: validations measure on prompts that are trained too, since of fewer than {ENOUGH} rows, and of a "
            "stream, none are held out" for name in few]  # fmt: skip


def _route_field(route: Route, fields: Mapping[str, VelocityField]) -> VelocityField:
    if isinstance(route.teacher, str):
        return fields[route.teacher]
    return mixed([(fields[name], weight) for name, weight in route.teacher.items()])
