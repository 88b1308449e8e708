"""Converts what the node graph holds, specs of the edges and widgets of Train, to a recipe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import Fault, InputError
from ..weights.adapters import STUDENT
from .file_names import LIVE, is_live
from .graph import FieldSpec, RoutesSpec
from .io import parse_recipe
from .overrides import overridden
from .schema import Recipe, Student, Teacher

MORE = ("optimizer", "query", "eta", "group", "ode_kl_weight", "anchor", "memory", "private", "aspects", "compile")
"""Settings that the widget more_settings may change; the others have widgets, or name files and folders."""

WIDGETS = {
    "optimizer.lr": "learning_rate",
    "optimizer.schedule": "schedule",
    "optimizer.warmup": "warmup",
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
    "student.base_lora": "Student LoRA, over",
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
    "memory": "more_settings: memory",
    "aspects": "more_settings: aspects",
    "compile": "more_settings: compile",
}
"""Recipe key -> the widget that sets it: "input" of the Train node, or "node, input". Keys below it are included."""

LIVE_WIDGETS = {
    "model": "Flow Model from ComfyUI, model",
    "model.clip": "Flow Model from ComfyUI, clip",
    "model.vae": "Flow Model from ComfyUI, vae",
    "dtype": "Flow Model from ComfyUI, model",
}
"""The widgets that take the place of those of `WIDGETS` over a model that ComfyUI has loaded."""

TEACHER = re.compile(r"teachers\.(?P<name>.+)\.(?P<key>\w+)", re.DOTALL)
TEACHER_WIDGETS = {
    "lora": "Teacher Field, lora",
    "checkpoint": "Teacher Field, checkpoint",
    "strength": "Teacher Field, strength",
    "guidance": "Guided Field, scale",
    "negative": "Guided Field, negative",
    "model": "Field from Another Model, field",
}
"""The same for a key of a teacher; its name follows."""

SAME_NAME = (
    "method", "steps", "batch", "accumulate", "rollout_steps", "seed", "save_every", "width", "height",
    "gradient_checkpointing", "private",
)  # fmt: skip
"""Recipe keys that are inputs of the Train node under the same name."""


def recipe_of(routes: RoutesSpec, student: Student, settings: Mapping[str, Any], more: str = "") -> Recipe:
    """The checked recipe. settings: recipe keys set by the Train node. more: lines of key=value.

    InputError names widgets instead of recipe keys.
    """
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
                "teacher": teacher_of(route.field, teachers),
                "bucket": asdict(route.prompts.bucket),
                "weight": route.weight,
            }
            for name, route in zip(routes.names(), routes.routes, strict=True)
        ],
    }
    tree["teachers"] = {name: asdict(teacher) for name, teacher in teachers.items()}
    faults: list[Fault] = []
    for line in filter(None, (line.strip() for line in more.splitlines())):
        if re.split(r"[.=\[ ]", line)[0] not in MORE:
            faults.append(Fault("", f"'{line}' is not one of its settings: there are {', '.join(MORE)}"))
            continue
        tree = overridden(Recipe, tree, line, faults)
    query = tree.get("query")
    if isinstance(query, dict) and query.get("sigma") and not re.search(r"^\s*query\.bias\b", more, re.MULTILINE):
        tree = {**tree, "query": {name: value for name, value in query.items() if name != "bias"}}
    if faults:
        raise InputError(faults=[Fault("more_settings", str(fault)) for fault in faults])
    with widget_names(model.live is not None):
        found = parse_recipe(tree)
    if settings.get("private") and not found.private:
        raise InputError.at("more_settings", "private=false stands against private, which is on: remove the line")
    return found


def teacher_of(field: FieldSpec, teachers: dict[str, Teacher]) -> str | dict[str, float]:
    """The `teacher` of a route with this field; adds the field's teachers to `teachers` under distinct names."""
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
    """ "edit x3": the names of its files and its guidance."""
    files = [name for name in (teacher.checkpoint, teacher.lora) if name]
    label = " + ".join(Path(name.removeprefix("shapes:")).stem for name in files) or "base"
    label += f" of {model_label(teacher.model)}" if teacher.model else ""
    label += f" at {teacher.strength:g}" if teacher.strength != 1 else ""
    return label + (f" x{teacher.guidance:g}" if teacher.guidance != 1 else "")


def model_label(model: str) -> str:
    """A model's name without its folder, or without the digest of one that ComfyUI had loaded."""
    return model.removeprefix(LIVE).partition(":")[0] if is_live(model) else Path(model).stem


def on_widgets(error: InputError, live: bool = False) -> InputError:
    """The same faults, with the widgets of the nodes in place of the recipe's keys. live: over a model of ComfyUI."""
    return InputError(faults=[Fault(_named(fault.setting, live), fault.message) for fault in error.faults])


@contextmanager
def widget_names(live: bool = False) -> Iterator[None]:
    """Inside, faults name widgets instead of recipe keys."""
    try:
        yield
    except InputError as error:
        raise on_widgets(error, live) from None


def _named(setting: str, live: bool) -> str:
    teacher = TEACHER.fullmatch(setting)
    if teacher is None or teacher["key"] not in TEACHER_WIDGETS:
        return widget(setting, live)
    named = "Field from MODEL, model" if live and teacher["key"] == "checkpoint" else TEACHER_WIDGETS[teacher["key"]]
    return f"{named} ('{teacher['name']}')"


def widget(setting: str, live: bool = False) -> str:
    """The widget that sets a recipe key, with what follows the key of `WIDGETS`; the key itself if there is none."""
    widgets = WIDGETS | LIVE_WIDGETS if live else WIDGETS
    keys = (key for key in widgets if setting == key or setting.startswith((f"{key}.", f"{key}[")))
    key = max(keys, key=len, default="")
    return widgets[key] + setting[len(key) :] if key else setting
