"""All that can be found wrong with a run before a model is loaded, told at once."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..algorithm.methods import METHODS
from ..data.buckets import load_bucket
from ..data.csv_rows import CsvRow, numbered_rows
from ..data.images import picture_fault
from ..data.prompt_assignment import assignment_faults
from ..errors import InputError
from ..models.compatibility import incompatibilities
from ..models.hub import is_hub_id
from ..models.quantise import check_quantise
from ..models.registry import family_of
from ..models.sigma_schedule import size_multiple as known_multiple
from ..recipe.io import parse_recipe
from ..recipe.parsing import refuse
from ..recipe.schema import Bucket, Recipe
from ..shapes import locate
from ..weights.full_checkpoints import weight_files
from ..weights.lora_io import LORA_KEY, weights_file
from ..weights.safetensors_io import open_safetensors

TOLD = 10
"""Faulty rows of a route that are told one by one."""


def preflight(recipe: Recipe, size_multiple: int = 1) -> None:
    """One InputError with a line for each fault of the recipe's settings, files and buckets, if there is one.

    Every picture is decoded. size_multiple: what the model's widths and heights are multiples of, if known.
    """
    recipe = parse_recipe(recipe.to_dict())  # one that was made by hand was not checked yet
    model = _look(recipe.model)
    faults = [*_sizes(recipe, math.lcm(size_multiple, model.multiple)), *_out(Path(recipe.out)), *model.faults]
    faults += _quantise(recipe)
    faults += [
        *_weights(recipe),
        *([] if model.faults or is_hub_id(recipe.model) else _unlike(recipe)),
        *_teachers(recipe),
    ]
    refuse("the run", [*faults, *_buckets(recipe, model)])


class _Model(NamedTuple):
    """What the model's configuration files tell: its faults, or of what its sizes are multiples, and how many source
    pictures its pipeline edits."""

    faults: tuple[str, ...] = ()
    multiple: int = 1
    pipeline: str = ""
    sources: float = math.inf


def _look(name: str) -> _Model:
    if is_hub_id(name):
        return _Model()  # known once it is fetched
    try:
        folder = locate(name)
        family, index = family_of(folder)
        pipeline = index["_class_name"]
        return _Model((), known_multiple(folder), pipeline, family.pipelines[pipeline])
    except InputError as error:
        return _Model((f"model: {error}",))


def _sizes(recipe: Recipe, multiple: int) -> Iterator[str]:
    for name, pixels in (("width", recipe.width), ("height", recipe.height)):
        if pixels % multiple:
            near = max(1, round(pixels / multiple)) * multiple
            yield f"{name}: {pixels} is not a multiple of {multiple}: take {near}"


def _out(out: Path) -> Iterator[str]:
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not there.is_dir():
        yield f"out: {there} is a file: give a folder"
    elif not os.access(there, os.W_OK):
        yield f"out: {there} cannot be written to: give another folder"


def _quantise(recipe: Recipe) -> Iterator[str]:
    try:
        if recipe.quantise is not None:
            check_quantise(recipe.quantise, recipe.device)
    except InputError as error:
        yield f"quantise: {error}"


def _weights(recipe: Recipe) -> Iterator[str]:
    asked: list[tuple[str, str | None, Callable[[Path], None]]] = []
    if recipe.student.start != "fresh":
        asked.append(("student.start", recipe.student.start, check_lora))
    asked += [(f"components.{part}", file, _check_component) for part, file in recipe.components.items()]
    asked.append(("student.over", recipe.student.over, check_lora))
    for name, teacher in recipe.teachers.items():
        asked.append((f"teachers.{name}.lora", teacher.lora, check_lora))
        asked.append((f"teachers.{name}.checkpoint", teacher.checkpoint, _check_checkpoint))
    for path, file, check in asked:
        try:
            if file is not None:
                check(locate(file))
        except InputError as error:
            yield f"{path}: {error}"


def _unlike(recipe: Recipe) -> Iterator[str]:
    for name, teacher in recipe.teachers.items():
        if teacher.checkpoint is None:
            continue
        try:
            found = incompatibilities(
                locate(teacher.checkpoint), locate(recipe.model), model_schedule=recipe.sigmas == "model"
            )
            yield from (f"teachers.{name}.checkpoint: {fault}" for fault in found)
        except InputError as error:
            yield f"teachers.{name}.checkpoint: {error}"


def _check_component(path: Path) -> None:
    with open_safetensors(path):
        pass


def check_lora(path: Path) -> None:
    """InputError if the file, or the one in the folder, is no LoRA; no weights are read."""
    with open_safetensors(weights_file(path)) as handle:
        if not any(LORA_KEY.fullmatch(key) for key in handle.keys()):  # noqa: SIM118 (a safetensors handle, no dict)
            raise InputError(f"{path} holds no LoRA: it has no lora_A or lora_down weights")


def _check_checkpoint(path: Path) -> None:
    for file in weight_files(path):
        with open_safetensors(file):
            pass


def _teachers(recipe: Recipe) -> Iterator[str]:
    used = {
        name
        for route in recipe.routes
        for name in ([route.teacher] if isinstance(route.teacher, str) else route.teacher)
    }
    for name in recipe.teachers:
        if name not in used:
            yield f"teachers.{name}: no route uses it: name it in a route, or leave it out"


def _buckets(recipe: Recipe, model: _Model) -> Iterator[str]:
    needs_target = METHODS[recipe.method].needs_clean
    loaded: dict[Bucket, tuple[CsvRow, ...]] = {}
    seen: dict[Path, str] = {}  # picture -> its fault, or nothing
    paths = [f"route {route.name!r}" for route in recipe.routes] + ["learned_router"]
    for path, bucket in zip(paths, recipe.buckets(), strict=False):
        try:
            if bucket not in loaded:
                loaded[bucket] = _load(bucket, recipe)
        except InputError as error:
            yield f"{path}: {error}"
            continue
        yield from _sources(path, bucket, loaded[bucket], model)
        if path != paths[-1]:  # prompts without a route may be of both kinds
            yield from _mingled(path, bucket, loaded[bucket])
        yield from _pictures(path, bucket, loaded[bucket], needs_target, recipe.method, seen)
    if recipe.learned_router is not None and len(loaded) == len(set(recipe.buckets())):
        *own, asked = ([row.item for row in loaded[bucket]] for bucket in recipe.buckets())
        yield from assignment_faults([route.name for route in recipe.routes], own, asked)


def _load(bucket: Bucket, recipe: Recipe) -> tuple[CsvRow, ...]:
    if bucket.csv is not None:
        return numbered_rows(bucket.csv, bucket.task)
    return tuple(CsvRow(i + 1, item) for i, item in enumerate(load_bucket(bucket, recipe.seed)))


def _where(path: str, bucket: Bucket) -> str:
    return f"{path}, {bucket.csv}" if bucket.csv else path


def _sources(path: str, bucket: Bucket, rows: tuple[CsvRow, ...], model: _Model) -> Iterator[str]:
    edits = [row.number for row in rows if row.item.source is not None]
    if edits and model.sources < 1:
        yield (
            f"{_where(path, bucket)}: {len(edits)} of {len(rows)} rows have a source picture ({_numbers(edits)}), "
            f"of which a {model.pipeline} takes none: remove them, or take a model that edits"
        )


def _mingled(path: str, bucket: Bucket, rows: tuple[CsvRow, ...]) -> Iterator[str]:
    bare = [row.number for row in rows if row.item.source is None]
    if 0 < len(bare) < len(rows):
        yield (
            f"{_where(path, bucket)}: {len(bare)} of {len(rows)} rows have no source_image ({_numbers(bare)}) and the "
            "others have: give every row one, or make two routes"
        )


def _pictures(
    path: str, bucket: Bucket, rows: tuple[CsvRow, ...], needs_target: bool, method: str, seen: dict[Path, str]
) -> Iterator[str]:
    where = _where(path, bucket)
    aimless = [row.number for row in rows if row.item.target is None]
    if needs_target and aimless:
        yield (
            f"{where}: {len(aimless)} of {len(rows)} rows have no target_image ({_numbers(aimless)}), which "
            f"{method} learns from: give every row one, or take another method"
        )
    pictures = [
        (row.number, picture)
        for row in rows
        for picture in (row.item.source, row.item.target if needs_target else None)
        if isinstance(picture, Path)
    ]
    new = sorted({picture for _, picture in pictures} - seen.keys())
    with ThreadPoolExecutor() as pool:
        seen.update(zip(new, pool.map(picture_fault, new), strict=True))
    faulty = [(number, seen[picture]) for number, picture in pictures if seen[picture]]
    for number, fault in faulty[:TOLD]:
        yield f"{path}, {bucket.csv}, row {number}: {fault}"
    if len(faulty) > TOLD:
        yield f"{where}: {len(faulty) - TOLD} more pictures cannot be used"


def _numbers(numbers: list[int]) -> str:
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"row {', '.join(map(str, numbers[:5]))}{more}"
