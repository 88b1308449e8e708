"""From the specs of the edges and the widgets of Train to a recipe of the core."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..weights.adapters import STUDENT
from .graph import FieldSpec, RoutesSpec
from .io import parse_recipe
from .overrides import overridden
from .schema import Recipe, Student, Teacher

MORE = ("optimizer", "query", "eta", "group", "ode_kl_weight", "anchor")
"""Settings that the text widget may change; the others are widgets, or name files and folders."""

WIDGETS = {
    "optimizer.lr": "learning_rate",
    "optimizer.schedule": "schedule",
    "optimizer.warmup": "warmup",
    "optimizer.weight_decay": "weight_decay",
    "optimizer.ema": "ema",
    "optimizer": "more_settings: optimizer",
    "query.bias": "bias",
    "query.k": "k",
    "query.sigma": "sigma_low and sigma_high",
    "query": "bias and k",
    "sigmas.shift": "shift",
    "student.start": "Student LoRA, start",
    "student.rank": "Student LoRA, rank",
    "student.alpha": "Student LoRA, alpha",
    "student.targets": "Student LoRA, targets",
    "student.over": "Student LoRA, over",
    "out": "name",
    "dtype": "Load Flow Model, dtype",
    "model": "Load Flow Model, model",
    "components.transformer": "Load Flow Model, transformer",
    "quantise": "Load Flow Model, quantise",
    "router": "Route Selector, router",
    "learned_router.holdout": "Learned Router, holdout",
    "learned_router.bucket": "Learned Router, unlabelled",
    "learned_router": "Learned Router",
    "eta": "more_settings: eta",
    "group": "more_settings: group",
    "anchor": "more_settings: anchor",
    "ode_kl_weight": "more_settings: ode_kl_weight",
}
"""Recipe keys at the start of a fault, as the person who sees only widgets knows them."""


def recipe_of(routes: RoutesSpec, student: Student, settings: Mapping[str, Any], more: str = "") -> Recipe:
    """The checked recipe; `settings` as `Recipe.from_dict` takes them, `more` as lines of key=value."""
    model = routes.model
    teachers: dict[str, Teacher] = {}
    tree: Any = {
        **settings,
        "model": model.folder,
        "components": model.components,
        "dtype": model.dtype,
        "quantise": model.quantise,
        "router": routes.router,
        "learned_router": asdict(routes.learned) if routes.learned else None,
        "student": asdict(student),
        "routes": [
            {
                "name": name,
                "teacher": teacher_of(lane.field, teachers),
                "bucket": asdict(lane.prompts.bucket),
                "weight": lane.weight,
            }
            for name, lane in zip(routes.names(), routes.lanes, strict=True)
        ],
    }
    tree["teachers"] = {name: asdict(teacher) for name, teacher in teachers.items()}
    faults: list[str] = []
    for line in filter(None, (line.strip() for line in more.splitlines())):
        if re.split(r"[.=\[ ]", line)[0] not in MORE:
            faults.append(f"more_settings: '{line}' is none of its settings: there are {', '.join(MORE)}")
            continue
        tree = overridden(Recipe, tree, line, faults)
    if faults:
        raise InputError("; ".join(faults))
    try:
        return parse_recipe(tree)
    except InputError as error:
        raise InputError(on_widgets(str(error))) from None


def teacher_of(field: FieldSpec, teachers: dict[str, Teacher]) -> str | dict[str, float]:
    """How a route names this field's teachers, which join `teachers` under names of their own."""
    names: dict[str, float] = {}
    for teacher, weight in field.parts:
        name = next((known for known, other in teachers.items() if other == teacher), None)
        if name is None:
            label = teacher_label(teacher)
            name = label if label not in (*teachers, STUDENT) else f"{label} ({len(teachers) + 1})"
            teachers[name] = teacher
        names[name] = weight
    return next(iter(names)) if len(names) == 1 else names


def teacher_label(teacher: Teacher) -> str:
    """ "edit x3": by its files' names and its guidance."""
    files = [name for name in (teacher.checkpoint, teacher.lora) if name]
    label = " + ".join(Path(name.removeprefix("shapes:")).stem for name in files) or "base"
    label += f" at {teacher.strength:g}" if teacher.strength != 1 else ""
    return label + (f" x{teacher.guidance:g}" if teacher.guidance != 1 else "")


def on_widgets(message: str) -> str:
    """The faults of a recipe, told by the names that the nodes give."""
    keys: Sequence[str] = sorted(WIDGETS, key=len, reverse=True)
    pattern = re.compile(rf"^(\s*(?:- )?)({'|'.join(map(re.escape, keys))})(?=[.:\[ ])", re.MULTILINE)
    faults = re.sub(r"^the (recipe|run) has (a fault|\d+ faults):\n\s*", "", message)
    return pattern.sub(lambda match: match[1] + WIDGETS[match[2]], faults)
