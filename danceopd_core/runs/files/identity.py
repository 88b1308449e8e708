"""What a run is trained from: its recipe, and a stamp of every file that the recipe names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...data.csv_rows import read_csv
from ...data.roots import Roots
from ...errors import InputError
from ...models.hub import is_hub_id
from ...recipe.schema import Recipe
from ...shapes import is_embedded, locate

VERSION = 2
"""Of identity.json. 2: the recipe's digest covers only the settings that differ from their default."""
WHOLE = 2**29
"""Files up to this many bytes are compared by their contents, larger ones by size and modification time."""
STEADY = ("constant", "constant_with_warmup")
"""Schedules that do not depend on the number of steps: with more of them, a run has the same past."""
_DIGEST = 64


def run_identity(recipe: Recipe, roots: Roots = None) -> dict[str, Any]:
    """What two runs have in common when the one can go on with, or stand for, the other; and the steps.

    roots: where the buckets' files have to lie; None: anywhere.
    """
    return {
        "version": VERSION,
        "recipe": recipe_digest(recipe),
        "contents": file_stamps(recipe, roots),
        "steps": recipe.steps,
    }


def recipe_digest(recipe: Recipe) -> str:
    """The digest that runs of different length have in common."""
    return replace(recipe, steps=1).digest()


def past_digest(recipe: Recipe) -> str:
    """The digest of all that decides what an update of the run is: of the steps only where the schedule needs them."""
    return recipe_digest(recipe) if is_steady(recipe) else recipe.digest()


def is_steady(recipe: Recipe) -> bool:
    """Whether more steps leave the updates before them as they are."""
    return recipe.optimizer.schedule in STEADY


def file_stamps(recipe: Recipe, roots: Roots = None) -> dict[str, str]:
    """A stamp of each file that the recipe names, by name; a CSV's is followed by one of the pictures it names.

    roots: where the buckets' files have to lie; None: anywhere.
    """
    stamps = {name: contents(path) for name, path in _files(recipe)}
    for csv in filter(None, (bucket.csv for bucket in recipe.buckets())):
        stamps[csv] += hashlib.sha256(repr(_pictures(Path(csv), roots)).encode()).hexdigest()
    return stamps


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Which files differ between two results of `file_stamps`, in words."""
    changed = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name, ""), now.get(name, "")
        if old != new:
            only_pictures = len(new) > _DIGEST and old[:_DIGEST] == new[:_DIGEST]
            changed.append(f"a picture that {name} names" if only_pictures else name)
    return changed


def _pictures(csv: Path, roots: Roots) -> list[tuple[int, int]]:
    """Those that the rows name; none if the preflight is to refuse the file."""
    try:
        pictures = [picture for item in read_csv(csv, roots=roots) for picture in (item.source, item.target)]
    except InputError:
        return []
    return [_dated(picture) for picture in pictures if isinstance(picture, Path) and picture.exists()]


def _files(recipe: Recipe) -> Iterator[tuple[str, Path]]:
    student = recipe.student
    names = [recipe.model, student.start if student.start != "fresh" else None, student.base_lora]
    names += recipe.components.values()
    names += [part for t in recipe.teachers.values() for part in (t.checkpoint, t.lora, t.model)]
    names += [file for bucket in recipe.buckets() for file in (bucket.csv, bucket.encoded, bucket.wildcard_files)]
    streams = (bucket.stream.source for bucket in recipe.buckets() if bucket.stream is not None)
    names += [source for source in streams if not is_hub_id(source)]
    for name in dict.fromkeys(filter(None, names)):
        path = Path(name) if not is_embedded(name) else locate(name)
        yield name, path


def contents(path: Path) -> str:
    """A stamp that changes when the file, or any file of the folder, does."""
    if path.is_dir():
        files = [(str(file.relative_to(path)), *_dated(file)) for file in sorted(path.rglob("*")) if file.is_file()]
        return hashlib.sha256(repr(files).encode()).hexdigest()
    if not path.is_file():
        return "absent"
    if path.stat().st_size > WHOLE:
        return repr(_dated(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _dated(file: Path) -> tuple[int, int]:
    stat = os.stat(file)
    return stat.st_size, stat.st_mtime_ns
