"""What the parts of a recipe must agree on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields

import torch

from ..algorithm.losses import ClippedPolicy, OdeKl
from ..algorithm.methods import METHODS
from ..algorithm.query import QUERIES, every
from ..algorithm.routers import ROUTERS
from ..errors import InputError
from ..lookup import lookup
from ..models.backbone import COMPONENTS
from ..models.sigma_schedule import SIGMA_SCHEDULES
from ..shapes.language import KINDS
from ..weights.adapters import STUDENT
from .parsing import sound
from .schema import Bucket, Optimizer, Query, Recipe, Route, Student, Teacher

OPTIONS = {"eta": ClippedPolicy, "group": ClippedPolicy, "anchor": ClippedPolicy, "ode_kl_weight": OdeKl}
"""Settings that only the methods of one objective have."""
DEFAULTS = {field.name: field.default for field in fields(Recipe)}


def broken_rules(recipe: Recipe) -> Iterator[str]:
    """A line for each fault between settings; parts that are `parse.FAULTY` are passed over."""
    if sound(recipe.routes):
        yield from _routes(recipe.routes)
    if sound(recipe.routes, recipe.teachers):
        yield from _teachers_of(recipe.routes, recipe.teachers)
    if sound(recipe.teachers):
        if STUDENT in recipe.teachers:
            yield f"teachers.{STUDENT}: that is the name of what is trained: give the teacher another"
        for name, teacher in recipe.teachers.items():
            yield from _teacher(f"teachers.{name}", teacher)
    if sound(recipe.student):
        yield from _student(recipe.student)
    if sound(recipe.components):
        for part in recipe.components:
            told = _unknown(dict.fromkeys(COMPONENTS), part, "part of a model")
            yield from [f"components.{part}: {told}"] if told else []
    if sound(recipe.quantise, recipe.components, recipe.teachers) and recipe.quantise is not None:
        yield from _quantise(recipe)
    if sound(recipe.optimizer):
        yield from _optimizer(recipe.optimizer)
    if sound(recipe.router) and (told := _unknown(ROUTERS, recipe.router, "router")):
        yield f"router: {told}"
    learned = recipe.learned_router
    if learned is not None and sound(learned) and sound(learned.bucket):
        yield from _bucket("learned_router.bucket", learned.bucket)
        if sound(recipe.routes) and len(recipe.routes) < 2:
            yield "learned_router: it chooses among routes, and there are not two: add a route, or leave it out"
    if sound(recipe.device) and recipe.device != "auto":
        try:
            torch.device(recipe.device)
        except RuntimeError:
            yield f"device: {recipe.device!r} is no device: there are auto, cpu, cuda, cuda:1, mps and the like"
    if isinstance(recipe.sigmas, str) and (told := _unknown(SIGMA_SCHEDULES, recipe.sigmas, "grid of sigmas")):
        yield f"sigmas: {told}; or give a shift, {{shift: 3.0}}"
    if sound(recipe.method):
        told = _unknown(METHODS, recipe.method, "method")
        yield from [f"method: {told}"] if told else _options(recipe)
    if sound(recipe.query):
        yield from _query(recipe)


def _quantise(recipe: Recipe) -> Iterator[str]:
    if "transformer" in recipe.components:
        yield (
            "quantise: only a transformer in the model's own folder is quantised, not a single file: leave out "
            "quantise or components.transformer"
        )
    whole = [name for name, teacher in recipe.teachers.items() if sound(teacher) and teacher.checkpoint is not None]
    if whole:
        yield (
            f"quantise: a full checkpoint ({', '.join(whole)}) is no teacher over a quantised model: leave out "
            "quantise (offload: true saves memory too), or give it as a LoRA"
        )


def _unknown(table: Mapping[str, object], name: str, what: str) -> str:
    try:
        lookup(table, name, what)
    except InputError as error:
        return str(error)
    return ""


def _routes(routes: tuple[Route, ...]) -> Iterator[str]:
    if not routes:
        yield "routes: there is none: give at least one teacher with its prompts"
    whole = [(f"routes[{i}]", route) for i, route in enumerate(routes) if sound(route)]
    seen: dict[str, str] = {}
    for path, route in whole:
        if sound(route.name) and seen.setdefault(route.name, path) != path:
            yield f"{path}.name: {route.name!r} is the name of {seen[route.name]} already"
        if sound(route.bucket):
            yield from _bucket(f"{path}.bucket", route.bucket)
    if whole and not any(not sound(route) or not sound(route.weight) or route.weight > 0 for route in routes):
        yield "routes: every weight is 0: give at least one above 0"


def _bucket(path: str, bucket: Bucket) -> Iterator[str]:
    if sound(bucket.csv, bucket.prompts, bucket.shapes):
        given = [name for name in ("csv", "prompts", "shapes") if bucket.__dict__[name]]
        if len(given) != 1:
            yield f"{path}: give exactly one of csv, prompts, shapes, not {' and '.join(given) or 'none'}"
        elif sound(bucket.task) and bucket.task is not None and not bucket.csv:
            yield f"{path}.task: it chooses rows of a csv, and there is none: leave it out"
        elif sound(bucket.count) and bucket.count and not bucket.shapes:
            yield f"{path}.count: it counts pictures of the embedded world (shapes): leave it out"
    if sound(bucket.shapes) and bucket.shapes is not None:
        told = _unknown(KINDS, bucket.shapes, "kind of the embedded world")
        yield from [f"{path}.shapes: {told}"] if told else []


def _teachers_of(routes: tuple[Route, ...], teachers: Mapping[str, Teacher]) -> Iterator[str]:
    for i, route in enumerate(routes):
        if not sound(route) or not sound(route.teacher):
            continue
        path = f"routes[{i}].teacher"
        for name in [route.teacher] if isinstance(route.teacher, str) else route.teacher:
            told = _unknown(teachers, name, "teacher")
            yield from [f"{path}: {told}"] if told else []
        if isinstance(route.teacher, dict) and sound(*route.teacher.values()):
            total = sum(route.teacher.values())
            if abs(total - 1) > 1e-6:
                yield f"{path}: the weights of mixed teachers sum to {total:g}, not 1: divide them by their sum"


def _teacher(path: str, teacher: Teacher) -> Iterator[str]:
    if not sound(teacher) or not sound(teacher.lora, teacher.strength):
        return
    if teacher.lora is None and teacher.strength != 1:
        yield f"{path}.strength: it is the strength of a lora, and there is none: leave it out"


def _student(student: Student) -> Iterator[str]:
    if sound(student.start, student.over) and student.over is not None and student.start != "fresh":
        yield "student.over: only a fresh student lies over a frozen LoRA: leave out start or over"


def _optimizer(optimizer: Optimizer) -> Iterator[str]:
    if sound(optimizer.schedule, optimizer.warmup) and optimizer.schedule == "constant" and optimizer.warmup:
        yield "optimizer.warmup: the constant schedule has none: take constant_with_warmup"


def _options(recipe: Recipe) -> Iterator[str]:
    for name, kind in OPTIONS.items():
        value = recipe.__dict__[name]
        if sound(value) and value != DEFAULTS[name] and not isinstance(METHODS[recipe.method].objective, kind):
            owners = [owner for owner, row in METHODS.items() if isinstance(row.objective, kind)]
            yield f"{name}: {recipe.method} has no such setting, only {', '.join(owners)}: leave it out"


def _query(recipe: Recipe) -> Iterator[str]:
    query = recipe.query
    if sound(query.bias) and (told := _unknown(QUERIES, query.bias, "query bias")):
        yield f"query.bias: {told}"
    if sound(query.sigma) and query.sigma:
        low, high = query.sigma
        if sound(query.bias) and query.bias != "low":
            yield "query: give bias or sigma, not both"
        if not low < high:
            yield f"query.sigma: the range from {low:g} to {high:g} is empty: give low < high"
    if sound(query.k, recipe.rollout_steps) and query.k > recipe.rollout_steps:
        yield f"query.k: {query.k} states of {recipe.rollout_steps} rollout_steps: ask for fewer, or take more steps"
    if sound(query.bias, query.k) and query.k > 1 and QUERIES.get(query.bias) is every and not query.sigma:
        yield f"query.k: the bias {query.bias!r} asks about all states, not {query.k}: leave k out"
    whole = sound(*query.__dict__.values(), recipe.method) and recipe.method in METHODS
    if whole and METHODS[recipe.method].query is every and query not in (Query(), Query("every")):
        yield f"query: {recipe.method} asks about every state: leave it out"
