"""A comparison of base, teachers and student: its fields, its prompts, and its sheet of pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ...data.buckets import load_bucket
from ...data.csv_rows import Item
from ...data.images import open_picture
from ...data.roots import Roots
from ...recipe.graph import FieldSpec, RoutesSpec
from ...recipe.schema import Teacher
from ..live.plots import SheetRow, contact_sheet
from ..plans.sources import LiveBase, LiveModel
from .field_sampling import SamplingSettings, paired_items

STUDENT_COLUMN = "student"
STACKED_COLUMN = "stacked"


def comparison_fields(routes: RoutesSpec, student: Teacher | None) -> dict[str, FieldSpec]:
    """The base model, the teachers of the routes and the student as a frozen LoRA, by distinct labels.

    Last, where teachers are MODELs of ComfyUI with LoRAs on them, one MODEL with all the LoRAs.
    """
    base = FieldSpec(routes.model, "base", ((Teacher(), 1.0),))
    fields: dict[str, FieldSpec] = {}
    for field in dict.fromkeys([base, *(route.field for route in routes.routes)]):
        taken = field.label in (*fields, STUDENT_COLUMN, STACKED_COLUMN)
        fields[f"{field.label} ({len(fields) + 1})" if taken else field.label] = field
    if student is not None:
        fields[STUDENT_COLUMN] = FieldSpec(routes.model, STUDENT_COLUMN, ((student, 1.0),))
    if (both := _stacked_models(routes)) is not None:
        fields[STACKED_COLUMN] = both
    return fields


def comparison_stacks(routes: RoutesSpec) -> dict[str, list[Teacher]]:
    """What the student stands in for: the LoRAs of all the routes' teachers on the base model at once.

    Nothing with fewer than two LoRAs over the routes' own model; a teacher with weights of its own is none of them, nor
    where one is a MODEL of ComfyUI: `comparison_fields` has those stacked.
    """
    teachers = _with_lora(routes)
    stackable = len(teachers) > 1 and not any(teacher.checkpoint for teacher in teachers)
    return {STACKED_COLUMN: teachers} if stackable else {}


def _with_lora(routes: RoutesSpec) -> list[Teacher]:
    """Those that are a LoRA on the routes' model, by a file or as a MODEL that carries it."""
    base: LiveBase | None = routes.model.live
    live = _live(routes)

    def has_lora(teacher: Teacher) -> bool:
        if teacher.checkpoint:
            model = live.get(teacher.checkpoint)
            return base is not None and model is not None and not teacher.lora and base.carries(model)
        return bool(teacher.lora)

    teachers = dict.fromkeys(teacher for route in routes.routes for teacher, _ in route.field.parts)
    own = [teacher for teacher in teachers if not teacher.model and has_lora(teacher)]
    return list({(teacher.checkpoint, teacher.lora, teacher.strength): teacher for teacher in own}.values())


def _live(routes: RoutesSpec) -> dict[str, LiveModel]:
    return {live.name: live for route in routes.routes for live in route.field.live}


def _stacked_models(routes: RoutesSpec) -> FieldSpec | None:
    """The routes' model with the LoRAs of MODELs, and of files, on it; guided as its teachers, if they agree."""
    teachers, base, live = _with_lora(routes), routes.model.live, _live(routes)
    models = [live[teacher.checkpoint] for teacher in teachers if teacher.checkpoint]
    if not models or len(teachers) < 2:
        return None
    both = base.stack(models, [(teacher.lora, teacher.strength) for teacher in teachers if teacher.lora])
    (guidance, negative), *others = {(teacher.guidance, teacher.negative) for teacher in teachers}
    whole = Teacher(checkpoint=both.name) if others else Teacher(both.name, guidance=guidance, negative=negative)
    return FieldSpec(routes.model, STACKED_COLUMN, ((whole, 1.0),), (both,))


def comparison_items(
    routes: RoutesSpec,
    prompts: Sequence[str],
    sources: Sequence[np.ndarray],
    rows: int,
    settings: SamplingSettings,
    roots: Roots = None,
) -> list[Item]:
    """The given prompts with their sources; without any, `rows` items of each route's bucket, spread over it.

    roots: where the buckets' files have to lie; None: anywhere.
    """
    if prompts or sources:
        return paired_items(prompts, sources)
    chosen: list[Item] = []
    for bucket in dict.fromkeys(route.prompts.bucket for route in routes.routes):
        items = load_bucket(bucket, settings.seed, settings.width, settings.height, roots)
        chosen += items[:: max(1, len(items) // rows)][:rows]  # a bucket lists its categories one after another
    return chosen


def comparison_sheet(
    items: Sequence[Item], images: Mapping[str, torch.Tensor], settings: SamplingSettings
) -> torch.Tensor:
    """(1, H, W, 3): one row per item, one column per field, and a first column of source pictures if there are any."""
    edits = any(item.source is not None for item in items)
    columns = {name: (image * 255).round().to(torch.uint8).numpy() for name, image in images.items()}
    rows = []
    for number, item in enumerate(items):
        cells: list[np.ndarray | None] = [column[number] for column in columns.values()]
        if edits:
            width, height = settings.width, settings.height
            cells.insert(0, None if item.source is None else open_picture(item.source, width, height))
        rows.append(SheetRow(item.prompt, cells))
    names = [*(["source"] if edits else []), *columns]
    sheet = contact_sheet(names, rows, cell=max(128, min(384, settings.width)))
    return torch.from_numpy(np.array(sheet)).float()[None] / 255
