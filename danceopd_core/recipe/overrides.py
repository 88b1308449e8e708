"""Applies `key.path=value` overrides to the tree of a recipe, before `parsing.build` reads it."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from ..errors import Fault
from ..lookup import did_you_mean
from .faulty import FAULTY, short
from .migration import migrated_path
from .parsing import unknown_setting
from .yaml_text import read_yaml


def overridden(declared: Any, tree: Any, assignment: str, faults: list[Fault]) -> Any:
    """A copy of `tree` with one value replaced; the tree itself and a fault if the path does not exist.

    The value is text for the declared type to read; `[...]` and `{...}` are YAML where a list or a mapping is
    declared. List entries are counted from 0: `routes.0.weight` or `routes[0].weight`.
    """
    path, equals, text = assignment.partition("=")
    if not equals:
        faults.append(Fault("", f"{short(assignment)}: write key.path=value"))
        return tree
    keys = migrated_path(path.strip().replace("[", ".").replace("]", "").split("."))
    return _set(declared, tree, keys, text.strip(), path.strip(), faults)


def _set(declared: Any, node: Any, keys: list[str], text: str, path: str, faults: list[Fault]) -> Any:
    kinds = _kinds(declared)
    structured = [kind for kind in kinds if is_dataclass(kind) or get_origin(kind) in (dict, tuple)]
    if not keys:
        if not (structured and text[:1] in ("[", "{")):
            return text
        unreadable: list[Fault] = []
        value = read_yaml(text, unreadable)
        faults.extend(Fault(path, str(fault)) for fault in unreadable)
        return node if value is FAULTY else value
    key, *rest = keys
    message = "it is a single value, without keys of its own"
    if structured:
        message = "the recipe has no such key here: give the whole value, as [...] or {...}"
    for kind in structured:
        if is_dataclass(kind):
            hints = get_type_hints(kind, include_extras=True)
            below = {} if node in (None, "") else node
            if key in hints and isinstance(below, Mapping):
                return {**below, key: _set(hints[key], below.get(key), rest, text, path, faults)}
            message = unknown_setting(kind, key) if key not in hints else message
        elif get_origin(kind) is dict and isinstance(node, Mapping):
            if key in node:
                return {**node, key: _set(get_args(kind)[1], node[key], rest, text, path, faults)}
            message = f"there is no {key!r}{did_you_mean(key, node)}: there are {', '.join(node)}"
        elif get_origin(kind) is tuple and isinstance(node, list | tuple):
            if key.isdecimal() and int(key) < len(node):
                inner, number = get_args(kind)[0], int(key)
                changed = _set(inner, node[number], rest, text, path, faults)
                return [*node[:number], changed, *node[number + 1 :]]
            message = f"there is no entry {key!r}: the list has {len(node)}, counted from 0"
    faults.append(Fault(path, message))
    return node


def _kinds(declared: Any) -> list[Any]:
    """The types that a declaration allows, without None and without limits."""
    if get_origin(declared) is Annotated:
        return _kinds(get_args(declared)[0])
    if get_origin(declared) in (Union, types.UnionType):
        return [inner for kind in get_args(declared) if kind is not type(None) for inner in _kinds(kind)]
    return [declared]
