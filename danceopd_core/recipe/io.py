"""Recipe files: YAML to a checked recipe, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import InputError
from ..files import write_text
from .overrides import overridden
from .parsing import FAULTY, build, plain, read_yaml, refuse
from .schema import Recipe, located
from .validation import broken_rules


def parse_recipe(mapping: Mapping[str, Any]) -> Recipe:
    """From dicts, lists, text and numbers, as YAML or JSON give them; one InputError tells every fault."""
    return _checked(mapping, "the recipe", [])


def read_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe file, changed by `key.path=value` overrides, with its files' paths made absolute.

    A relative path is meant from the recipe's folder if it exists there, else from the current one; `out`
    stays as it is. InputError tells every fault.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error
    except (OSError, ValueError) as error:
        raise InputError(f"the recipe {path} cannot be read: {error}") from error
    faults: list[str] = []
    tree = read_yaml(text, faults)
    if tree is FAULTY:
        refuse(str(path), faults)
    for assignment in overrides:
        tree = overridden(Recipe, tree, assignment, faults)
    return located(_checked(tree, str(path), faults), path.parent)


def write_recipe(path: str | Path, recipe: Recipe) -> None:
    """The recipe without what has its default value, atomically."""
    write_text(path, yaml.safe_dump(plain(recipe, sparse=True), sort_keys=False, allow_unicode=True, width=110))


def _checked(tree: Any, what: str, faults: list[str]) -> Recipe:
    recipe = build(Recipe, tree, "", faults)
    if recipe is not FAULTY:
        faults.extend(broken_rules(recipe))
    refuse(what, faults)
    return recipe
