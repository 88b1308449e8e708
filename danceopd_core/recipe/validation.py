"""Rules between the settings of a recipe: references, combinations, and names looked up in tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields

import torch

from ..algorithm.methods import KNOBS, METHODS
from ..algorithm.query import QUERIES, every
from ..algorithm.routers import ROUTERS
from ..errors import Fault, InputError
from ..lookup import lookup
from ..models.backbone import COMPONENTS
from ..models.sigma_schedule import SIGMA_SCHEDULES
from ..shapes import ONLY_NATIVE, is_native
from ..shapes.language import KINDS
from ..weights.adapters import STUDENT
from .faulty import sound
from .file_names import is_live
from .schema import Bucket, Optimizer, Query, Recipe, Route, Student, Teacher

CONTENTS = ("csv", "prompts", "shapes", "encoded", "stream")
"""What a bucket holds."""
DEFAULTS = {field.name: field.default for field in fields(Recipe)}


def broken_rules(recipe: Recipe) -> Iterator[Fault]:
    """The faults between settings; parts that are FAULTY are skipped."""
    if sound(recipe.routes):
        yield from _routes(recipe.routes)
    if sound(recipe.routes, recipe.teachers):
        yield from _route_teachers(recipe.routes, recipe.teachers)
    if sound(recipe.teachers):
        if STUDENT in recipe.teachers:
            yield Fault(f"teachers.{STUDENT}", "the name is reserved for the student: give the teacher another name")
        for name, teacher in recipe.teachers.items():
            yield from _teacher(f"teachers.{name}", teacher, recipe.model)
    if sound(recipe.student):
        yield from _student(recipe.student, recipe.model)
    if sound(recipe.components):
        for part in recipe.components:
            yield from _unknown(f"components.{part}", dict.fromkeys(COMPONENTS), part, "part of a model")
    if sound(recipe.quantise, recipe.components, recipe.teachers) and recipe.quantise is not None:
        yield from _quantise(recipe)
    if sound(recipe.compile, recipe.model, recipe.quantise) and recipe.compile:
        yield from _compile(recipe)
    if sound(recipe.optimizer):
        yield from _optimizer(recipe.optimizer)
    if sound(recipe.router):
        yield from _unknown("router", ROUTERS, recipe.router, "router")
        if recipe.router == "balanced" and _streams(recipe):
            yield Fault("router", "balanced holds samples out, and a stream gives each in its turn: choose weighted")
    learned = recipe.learned_router
    if learned is not None and sound(learned) and sound(learned.bucket):
        yield from _bucket("learned_router.bucket", learned.bucket)
        if _streams(recipe) or learned.bucket.stream is not None:
            yield Fault("learned_router", "it reads every prompt, and a stream has no end: use a csv, or leave it out")
        if sound(recipe.routes) and len(recipe.routes) < 2:
            yield Fault("learned_router", "it needs at least two routes to choose from: add a route, or leave it out")
    if sound(recipe.aspects) and recipe.aspects != "one":
        yield from _aspects(recipe)
    if sound(recipe.device) and recipe.device != "auto":
        yield from _device(recipe.device)
    if isinstance(recipe.sigmas, str):
        yield from _unknown(
            "sigmas", SIGMA_SCHEDULES, recipe.sigmas, "sigma schedule", "; or give a shift, {shift: 3.0}"
        )
    if sound(recipe.method):
        yield from _unknown("method", METHODS, recipe.method, "method")
        if recipe.method in METHODS:
            yield from _knobs(recipe)
    if sound(recipe.query):
        yield from _query(recipe)


def _unknown(setting: str, table: Mapping[str, object], name: str, what: str, more: str = "") -> Iterator[Fault]:
    try:
        lookup(table, name, what)
    except InputError as error:
        yield Fault(setting, f"{error}{more}")


def _device(device: str) -> Iterator[Fault]:
    try:
        torch.device(device)
    except RuntimeError:
        yield Fault("device", f"{device!r} is not a device: give auto, cpu, cuda, cuda:1, mps or the like")


def _quantise(recipe: Recipe) -> Iterator[Fault]:
    if "transformer" in recipe.components:
        yield Fault(
            "quantise",
            "only the transformer in the model's own folder is quantised, not a single file: leave out "
            "quantise or components.transformer",
        )
    own = {name: teacher for name, teacher in recipe.teachers.items() if sound(teacher) and not teacher.model}
    checkpoints = [name for name, teacher in own.items() if teacher.checkpoint]
    if checkpoints:
        yield Fault(
            "quantise",
            f"a full checkpoint ({', '.join(checkpoints)}) cannot be a teacher of a quantised model: leave out "
            "quantise (offload: true saves memory too), or give the teacher as a LoRA",
        )


def _compile(recipe: Recipe) -> Iterator[Fault]:
    if is_live(recipe.model):
        yield Fault(
            "compile",
            "a MODEL of ComfyUI moves and patches its weights between calls, so its blocks are not compiled: leave it "
            "out, or train over a diffusers folder",
        )
    if recipe.quantise is not None:
        yield Fault("compile", "blocks over quantised weights are not compiled: leave out compile or quantise")


def _routes(routes: tuple[Route, ...]) -> Iterator[Fault]:
    if not routes:
        yield Fault("routes", "the list is empty: give at least one teacher with its prompts")
    present = [(f"routes[{i}]", route) for i, route in enumerate(routes) if sound(route)]
    seen: dict[str, str] = {}
    for path, route in present:
        if sound(route.name) and seen.setdefault(route.name, path) != path:
            yield Fault(f"{path}.name", f"{route.name!r} is already the name of {seen[route.name]}: give another")
        if sound(route.bucket):
            yield from _bucket(f"{path}.bucket", route.bucket)
    if present and not any(not sound(route) or not sound(route.weight) or route.weight > 0 for route in routes):
        yield Fault("routes", "every weight is 0: give at least one above 0")


def _bucket(path: str, bucket: Bucket) -> Iterator[Fault]:
    if sound(*(bucket.__dict__[name] for name in CONTENTS)):
        given = [name for name in CONTENTS if bucket.__dict__[name]]
        if len(given) != 1:
            yield Fault(path, f"give exactly one of {', '.join(CONTENTS)}, not {' and '.join(given) or 'none'}")
        elif sound(bucket.task) and bucket.task is not None and not bucket.csv:
            yield Fault(f"{path}.task", "it selects rows of a csv, and the bucket has none: leave it out")
        elif sound(bucket.count) and bucket.count and not bucket.shapes:
            yield Fault(f"{path}.count", "it is a number of items of the embedded world (shapes): leave it out")
    if (
        sound(bucket.wildcards, bucket.shapes, bucket.encoded, bucket.stream)
        and bucket.wildcards
        and (bucket.shapes or bucket.encoded or bucket.stream)
    ):
        yield Fault(f"{path}.wildcards", "they are drawn in prompts and csv only: leave it out")
    if sound(bucket.shapes) and bucket.shapes is not None:
        yield from _unknown(f"{path}.shapes", KINDS, bucket.shapes, "kind of the embedded world")


def _route_teachers(routes: tuple[Route, ...], teachers: Mapping[str, Teacher]) -> Iterator[Fault]:
    for i, route in enumerate(routes):
        if not sound(route) or not sound(route.teacher):
            continue
        path = f"routes[{i}].teacher"
        for name in [route.teacher] if isinstance(route.teacher, str) else route.teacher:
            yield from _unknown(path, teachers, name, "teacher")
        if isinstance(route.teacher, dict) and sound(*route.teacher.values()):
            total = sum(route.teacher.values())
            if abs(total - 1) > 1e-6:
                yield Fault(path, f"the weights of mixed teachers sum to {total:g}, not 1: divide them by their sum")


def _teacher(path: str, teacher: Teacher, model: str) -> Iterator[Fault]:
    if not sound(teacher) or not sound(teacher.lora, teacher.strength, teacher.model, model):
        return
    if teacher.model == model:
        yield Fault(f"{path}.model", "it is the run's own model: leave it out")
    yield from _only_native(f"{path}.lora", teacher.lora, teacher.model or model)
    if teacher.lora is None and teacher.strength != 1:
        yield Fault(f"{path}.strength", "it scales a lora, and the teacher has none: leave it out")


def _only_native(path: str, lora: str | None, model: str) -> Iterator[Fault]:
    if lora and is_native(lora) and not is_live(model):
        yield Fault(path, f"{lora} {ONLY_NATIVE}")


def _student(student: Student, model: str) -> Iterator[Fault]:
    if sound(student.start, student.base_lora, model):
        yield from _only_native("student.start", student.start, model)
        yield from _only_native("student.base_lora", student.base_lora, model)
    if sound(student.start, student.base_lora) and student.base_lora is not None and student.start != "fresh":
        yield Fault(
            "student.base_lora", "only a fresh student is trained on top of a frozen LoRA: leave out start or base_lora"
        )


def _optimizer(optimizer: Optimizer) -> Iterator[Fault]:
    if sound(optimizer.schedule, optimizer.warmup) and optimizer.schedule == "constant" and optimizer.warmup:
        yield Fault("optimizer.warmup", "the constant schedule has no warmup: use constant_with_warmup")


def _aspects(recipe: Recipe) -> Iterator[Fault]:
    if _streams(recipe):
        yield Fault("aspects", "a batch of one size needs the whole bucket, and a stream has no end: use a csv")
    if recipe.learned_router is not None:
        yield Fault("aspects", "a learned router takes pictures of one size: leave aspects out, or the router")
    if sound(recipe.teachers) and any(sound(part, part.model) and part.model for part in recipe.teachers.values()):
        yield Fault("aspects", "a teacher with a model of its own takes pictures of one size: leave one of them out")


def _streams(recipe: Recipe) -> bool:
    routes = recipe.routes if sound(recipe.routes) else ()
    buckets = [route.bucket for route in routes if sound(route)]
    return any(sound(bucket) and bucket.stream is not None for bucket in buckets)


def _knobs(recipe: Recipe) -> Iterator[Fault]:
    for name in dict.fromkeys(name for knobs in KNOBS.values() for name in knobs):
        value = recipe.__dict__[name]
        if sound(value) and value != DEFAULTS[name] and name not in METHODS[recipe.method].knobs:
            owners = ", ".join(owner for owner, row in METHODS.items() if name in row.knobs)
            yield Fault(name, f"{recipe.method} has no such setting, only {owners}: leave it out")


def too_many_queries(k: int, steps: int) -> str:
    return f"{k} states of a path with {steps} rollout_steps: lower k, or raise rollout_steps"


def _query(recipe: Recipe) -> Iterator[Fault]:
    query = recipe.query
    if sound(query.bias):
        yield from _unknown("query.bias", QUERIES, query.bias, "query bias")
    if sound(query.sigma) and query.sigma:
        low, high = query.sigma
        if sound(query.bias) and query.bias != "low":
            yield Fault("query", "give bias or sigma, not both")
        if not low < high:
            yield Fault("query.sigma", f"the range from {low:g} to {high:g} is empty: give low < high")
    if sound(query.k, recipe.rollout_steps) and query.k > recipe.path_steps:
        yield Fault("query.k", too_many_queries(query.k, recipe.path_steps))
    if sound(query.bias, query.k) and query.k > 1 and QUERIES.get(query.bias) is every and not query.sigma:
        yield Fault("query.k", f"the bias {query.bias!r} queries all states, not {query.k}: leave k out")
    readable = sound(*query.__dict__.values(), recipe.method) and recipe.method in METHODS
    if readable and not METHODS[recipe.method].takes_query and query not in (Query(), Query("every")):
        yield Fault("query", f"{recipe.method} queries every state: leave it out")
