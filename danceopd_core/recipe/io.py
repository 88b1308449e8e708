"""Reads and writes recipes: YAML files, mappings, and recipes constructed in Python become checked recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ..errors import Fault, refuse, shown
from ..files import write_text
from ..outside import read_text
from .faulty import FAULTY
from .migration import SINCE, migrated
from .overrides import overridden
from .parsing import build, plain
from .schema import Recipe, located
from .validation import broken_rules
from .yaml_text import read_yaml

CHECKED = "_checked"
"""The attribute of a recipe that was checked. It is not a field, so `dataclasses.replace` leaves it behind."""


def parse_recipe(mapping: Mapping[str, Any]) -> Recipe:
    """From dicts, lists, text and numbers, as YAML or JSON give them; one InputError holds every fault."""
    return _build(mapping, "the recipe", [])


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe file, changed by `key.path=value` overrides, with absolute paths of its files.

    A relative path is relative to the recipe's folder if it exists there, else to the current folder; `out` is not
    changed. One InputError holds every fault.
    """
    path = Path(path)
    text = read_text(path, "the recipe")
    faults: list[Fault] = []
    tree = read_yaml(text, faults)
    if tree is FAULTY:
        refuse(str(path), faults)
    tree = migrated(tree, faults)  # an override replaces the value under the new key
    for assignment in overrides:
        tree = overridden(Recipe, tree, assignment, faults)
    return _marked(located(_build(tree, str(path), faults), path.parent))


def read_stored_recipe(path: str | Path) -> Recipe:
    """The recipe of a run's folder: a setting that it lacks because no release had it yet means what it meant then."""
    recipe = read_recipe(path)
    return recipe if says_all(path) else _marked(replace(recipe, **SINCE))


def says_all(path: str | Path) -> bool:
    """Whether the recipe of a run's folder has the settings that a release since then has brought."""
    tree = read_yaml(read_text(Path(path), "the recipe"), [])
    return isinstance(tree, Mapping) and tree.keys() >= SINCE.keys()


def checked(recipe: Recipe) -> Recipe:
    """The recipe as its values would be read from a file; one InputError holds every fault.

    For recipes constructed in Python, which hold whatever they were given. One that was read or checked before is
    returned as it is.
    """
    return recipe if CHECKED in recipe.__dict__ else parse_recipe(recipe.to_dict())


def write_recipe(path: str | Path, recipe: Recipe, notes: Sequence[str] = (), stored: bool = False) -> None:
    """Writes the settings that differ from their default, atomically. notes: lines of comment above them. stored: it is
    of a run's folder, for `read_stored_recipe`."""
    comment = "".join(f"# {shown(' '.join(note.split()))}\n" for note in notes)
    tree = plain(recipe, sparse=True) | ({name: getattr(recipe, name) for name in SINCE} if stored else {})
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110)
    write_text(path, comment + text)


def comments_of(path: str | Path) -> list[str]:
    """The notes that `write_recipe` wrote above a recipe."""
    lines = read_text(Path(path), "the recipe").splitlines()
    return [line[1:].strip() for line in lines if line[:1] == "#"]


def _build(tree: Any, what: str, faults: list[Fault]) -> Recipe:
    recipe = build(Recipe, migrated(tree, faults), "", faults)
    if recipe is not FAULTY:
        faults.extend(broken_rules(recipe))
    refuse(what, faults)
    return _marked(recipe)


def _marked(recipe: Recipe) -> Recipe:
    recipe.__dict__[CHECKED] = True
    return recipe
