"""What the model card of a run tells, read from the run's folder: no model is opened."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...outside import parse_json, read_json
from ...recipe.from_graph import teacher_label
from ...recipe.io import comments_of, read_stored_recipe
from ...recipe.schema import Recipe, Route
from ...weights.safetensors_io import open_safetensors
from ..files.history import UpdateLines
from ..files.known_models import KnownModel, known_model
from ..files.numbers import finite, is_update
from ..live.saved_status import is_status, picture_name
from ..live.strip import PICTURES, Strip
from ..training.best import Best, best_of, percent

ENDS = 20
"""Updates of a route whose mean loss stands for its start or its end, where there is no validation."""


@dataclass(frozen=True)
class Capability:
    """What the student learned on a route. first, last: its distance to the teacher before and after; None: unknown."""

    name: str
    task: str
    teacher: str
    first: float | None
    last: float | None


@dataclass(frozen=True)
class SamplePicture:
    """A validation picture and its prompt."""

    file: Path
    prompt: str


@dataclass(frozen=True)
class CardFacts:
    """validated: whether the distances are those of validations, and not of training losses. for_diffusers: whether the
    file has diffusers' names. sheet: a picture of the samples beside their sources and teachers'. best: of the run's
    validations. percent: of this student's, in percent of the start."""

    recipe: Recipe
    run: str
    updates: int
    base: KnownModel | None
    rank: int
    capabilities: tuple[Capability, ...]
    validated: bool
    for_diffusers: bool = True
    samples: tuple[SamplePicture, ...] = ()
    sheet: Path | None = None
    best: Best | None = None
    percent: float | None = None
    health: Mapping[str, Any] = field(default_factory=dict)


def card_facts(folder: Path, student: Path | None = None, sheet: Path | None = None) -> CardFacts:
    """Those of a run's folder with a student in it; InputError if there is none.

    student: which of the run's it is about; None: the last. sheet: of its samples, if it is there.
    """
    student = student or folder / "student.safetensors"
    with open_safetensors(student) as handle:
        metadata, keys = handle.metadata() or {}, list(handle.keys())
    own = parse_json(metadata.get("danceopd", "{}"), f"the metadata of {student}")
    own = own if isinstance(own, dict) else {}
    recipe = read_stored_recipe(folder / "recipe.yaml")
    tasks = own.get("tasks") if isinstance(own.get("tasks"), dict) else {}
    entries = [e for e in _entries(folder, "validation.jsonl") if isinstance(e.get("errors"), dict)]
    done = found if is_update(found := own.get("update")) else None
    validations = [e["errors"] for e in entries if done is None or e["update"] <= done]
    trained = [route.name for route in recipe.routes if route.weight > 0]
    start: Mapping[str, Any] = next((e["errors"] for e in entries if e["update"] == 0), {})
    updates = [entry["losses"] for entry in _entries(folder, "history.jsonl") if isinstance(entry.get("losses"), dict)]

    def capability(route: Route) -> Capability:
        known = _known(validations, route.name)
        if not known:
            losses = _known(updates, route.name)
            known = [_mean(losses[:ENDS]), _mean(losses[-ENDS:])] if losses else []
        first, last = (known[0], known[-1]) if known else (None, None)
        task = str((tasks or {}).get(route.name) or "text-to-image")
        return Capability(route.name, task, teacher_text(recipe, route), first, last)

    rank = metadata.get("ss_network_dim", "")
    healths = _entries(folder, "health.jsonl")
    return CardFacts(
        recipe=recipe,
        run=str(own.get("run") or ""),
        updates=len(updates) if done is None else done,
        base=known_model(_model_names(folder, recipe)),
        rank=int(rank) if rank.isascii() and rank.isdecimal() and len(rank) < 10 else 0,
        capabilities=tuple(map(capability, recipe.routes)),
        validated=bool(validations),
        for_diffusers=all(key.startswith("transformer.") for key in keys),
        samples=() if recipe.private else tuple(_samples(folder, done)),
        sheet=sheet if sheet is not None and sheet.is_file() and not recipe.private else None,
        best=best_of(entries, trained),
        percent=percent(start, validations[-1], trained) if validations else None,
        health=healths[-1] if healths else {},
    )


def teacher_text(recipe: Recipe, route: Route) -> str:
    """The teachers of a route by the names of their files, with their guidance."""
    names = {route.teacher: 1.0} if isinstance(route.teacher, str) else route.teacher
    parts = [(teacher_label(recipe.teachers[name]), weight) for name, weight in names.items()]
    return " + ".join(label if weight == 1 else f"{weight:g} {label}" for label, weight in parts)


def _model_names(folder: Path, recipe: Recipe) -> list[str]:
    """Where the base model's name may stand: its single file, its folder, what ComfyUI's loaders loaded."""
    named = filter(None, [recipe.components.get("transformer"), recipe.model])
    return [*named, *comments_of(folder / "recipe.yaml")]


def _samples(folder: Path, update: int | None) -> list[SamplePicture]:
    """The pictures of a validation at that update; else those of the last one."""
    file = folder / "status.json"
    try:
        status = read_json(file, "the status") if file.exists() else None
    except InputError:
        return []
    if status is None or not is_status(status):
        return []
    found = [SamplePicture(folder / PICTURES / picture_name(one), one["prompt"]) for one in status["pictures"]]
    own = [] if update is None else Strip(folder).of(update)
    if len(own) == len(found):
        found = [SamplePicture(file, sample.prompt) for file, sample in zip(own, found, strict=True)]
    return [sample for sample in found if sample.file.is_file()]


def _entries(folder: Path, name: str) -> list[dict[str, Any]]:
    return UpdateLines(folder / name).read()


def _known(entries: list[Mapping[str, Any]], route: str) -> list[float]:
    return [value for entry in entries if (value := finite(entry.get(route))) is not None]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
