"""Checks a recipe's settings, files and prompts before a model is loaded, and reports every fault at once."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...algorithm.optimizers import check_optimizer
from ...data.buckets import load_bucket
from ...data.csv_rows import CsvRows, Item, items_of
from ...data.roots import Roots
from ...errors import Fault, InputError, refuse
from ...models.compatibility import incompatibilities
from ...models.compiling import check_compile
from ...models.hub import is_hub_id
from ...models.quantise import check_quantise
from ...recipe.file_names import is_live
from ...recipe.schema import Bucket, Recipe
from ...shapes import locate
from ..files.run_names import check_place
from .opening import pick_device
from .preflight_buckets import check_buckets
from .preflight_weights import weight_faults
from .sources import ModelFacts, ModelSource, other_source, recipe_source


@dataclass(frozen=True, eq=False)
class Preflight:
    """A recipe that passed, with the rows of its buckets that were read on the way."""

    recipe: Recipe
    rows: Mapping[Bucket, CsvRows]

    def items(self, bucket: Bucket) -> Sequence[Item]:
        """The items of one of the recipe's buckets, as `load_bucket` gives them; no file but a stream is read again."""
        if bucket.shapes is not None or bucket.stream is not None:  # made or read when they are used
            return load_bucket(bucket, self.recipe.seed, self.recipe.width, self.recipe.height)
        return items_of(self.rows[bucket])


def preflight(recipe: Recipe, source: ModelSource | None = None, roots: Roots = None) -> Preflight:
    """One InputError with every fault of a checked recipe's settings, files and buckets, if there are any.

    Every image that the run draws is decoded, in buckets that are not large every other one too. A recipe constructed
    in Python has to be checked first (`recipe.io.checked`). source: of its model; None: what the recipe names. roots:
    where the buckets' files have to lie; None: anywhere.
    """
    source = source or recipe_source(recipe)
    models = {None: source.facts()} | {name: other_source(source, name).facts() for name in _own_models(recipe)}
    faulty = {name for name, model in models.items() if model.faults}
    faults = [
        *size_faults(_together(list(models.values())), recipe.width, recipe.height),
        *_out(Path(recipe.out)),
        *_device(recipe),
        *_models(recipe, models),
        *_quantise(recipe),
        *_optimizer(recipe),
        *weight_faults(recipe, faulty),
        *_differences(recipe, faulty),
        *_unused_teachers(recipe),
    ]
    rows = check_buckets(recipe, models, faults, roots)
    refuse("the run", faults)
    return Preflight(recipe, rows)


def _together(models: Sequence[ModelFacts]) -> ModelFacts:
    """What a size has to fit: all of the models."""
    return ModelFacts(
        (),
        math.lcm(*(model.size_multiple for model in models)),
        longest_side=min(model.longest_side for model in models),
    )


def size_faults(model: ModelFacts, width: int, height: int) -> Iterator[Fault]:
    """What keeps a picture of this size, in pixels, from being made by the model."""
    multiple = model.size_multiple
    for name, pixels in (("width", width), ("height", height)):
        if pixels > model.longest_side:
            yield Fault(
                name, f"{pixels} is more than the longest side of this model's pictures: use {model.longest_side:g}"
            )
        elif pixels % multiple:
            near = max(1, round(pixels / multiple)) * multiple
            yield Fault(name, f"{pixels} is not a multiple of {multiple}: use {near}")


def _out(out: Path) -> Iterator[Fault]:
    try:
        check_place(out)
    except InputError as error:
        yield Fault("out", str(error))
        return
    nearest = next(folder for folder in (out.absolute(), *out.absolute().parents) if os.path.exists(folder))
    if not nearest.is_dir():
        yield Fault("out", f"{nearest} is a file: give a folder")
    elif not os.access(nearest, os.W_OK):
        yield Fault("out", f"{nearest} cannot be written to: give another folder")


def _quantise(recipe: Recipe) -> Iterator[Fault]:
    try:
        if recipe.quantise is not None:
            check_quantise(recipe.quantise, recipe.device)
    except InputError as error:
        yield Fault("quantise", str(error))


def _optimizer(recipe: Recipe) -> Iterator[Fault]:
    try:
        check_optimizer(recipe.optimizer.name)
    except InputError as error:
        yield from error.faults


def _device(recipe: Recipe) -> Iterator[Fault]:
    try:
        device = pick_device(recipe.device)
    except InputError as error:
        yield Fault("device", str(error))
        return
    try:
        if recipe.compile:
            check_compile(device)
    except InputError as error:
        yield Fault("compile", str(error))


def _own_models(recipe: Recipe) -> list[str]:
    """The models that teachers have for themselves, each once."""
    return list(dict.fromkeys(teacher.model for teacher in recipe.teachers.values() if teacher.model))


def _models(recipe: Recipe, models: Mapping[str | None, ModelFacts]) -> Iterator[Fault]:
    yield from models[None].faults
    for name, teacher in recipe.teachers.items():
        for fault in models[teacher.model].faults if teacher.model else ():
            yield Fault(f"teachers.{name}.model", fault.message)


def _differences(recipe: Recipe, faulty: Collection[str | None]) -> Iterator[Fault]:
    """Where the architecture or the sigma schedule of a full checkpoint's folder differs from its model's.

    faulty: the models that cannot be compared, None for the run's.
    """
    for name, teacher in recipe.teachers.items():
        model = teacher.model or recipe.model
        if teacher.checkpoint is None or teacher.model in faulty or is_hub_id(model) or is_live(model):
            continue
        setting = f"teachers.{name}.checkpoint"
        try:
            schedule = recipe.sigmas == "model" and not teacher.model  # its own model's is used by no one
            for message in incompatibilities(locate(teacher.checkpoint), locate(model), model_schedule=schedule):
                yield Fault(setting, message)
        except InputError as error:
            yield Fault(setting, str(error))


def _unused_teachers(recipe: Recipe) -> Iterator[Fault]:
    used = {name for route in recipe.routes for name in route.teachers}
    for name in recipe.teachers:
        if name not in used:
            yield Fault(f"teachers.{name}", "no route uses it: name it in a route, or leave it out")
