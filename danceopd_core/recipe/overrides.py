"""`key.path=value` on top of a tree that `parse.build` will read."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from .parsing import FAULTY, guess, read_yaml, short, unknown_name


def overridden(declared: Any, tree: Any, assignment: str, faults: list[str]) -> Any:
    """A copy of `tree` with one value replaced; the tree itself and a fault if the path leads nowhere.

    A value is text for the declared type to read; `[...]` and `{...}` are YAML where a list or a mapping is
    declared. Entries of lists are counted from 0: `routes.0.weight` or `routes[0].weight`.
    """
    path, equals, text = assignment.partition("=")
    if not equals:
        faults.append(f"{short(assignment)}: write key.path=value")
        return tree
    keys = path.strip().replace("[", ".").replace("]", "").split(".")
    return _set(declared, tree, keys, text.strip(), path.strip(), faults)


def _set(declared: Any, node: Any, keys: list[str], text: str, path: str, faults: list[str]) -> Any:
    kinds = _kinds(declared)
    structured = [kind for kind in kinds if is_dataclass(kind) or get_origin(kind) in (dict, tuple)]
    if not keys:
        if not (structured and text[:1] in ("[", "{")):
            return text
        found: list[str] = []
        value = read_yaml(text, found)
        faults.extend(f"{path}: {fault}" for fault in found)
        return node if value is FAULTY else value
    key, *rest = keys
    told = "the file has no such parts there: give the whole, as [...] or {...}" if structured else "it has no parts"
    for kind in structured:
        if is_dataclass(kind):
            hints = get_type_hints(kind, include_extras=True)
            below = {} if node in (None, "") else node
            if key in hints and isinstance(below, Mapping):
                return {**below, key: _set(hints[key], below.get(key), rest, text, path, faults)}
            told = unknown_name(kind, key) if key not in hints else told
        elif get_origin(kind) is dict and isinstance(node, Mapping):
            if key in node:
                return {**node, key: _set(get_args(kind)[1], node[key], rest, text, path, faults)}
            told = f"there is no {key!r}{guess(key, node)}: there are {', '.join(node)}"
        elif get_origin(kind) is tuple and isinstance(node, list | tuple):
            if key.isdecimal() and int(key) < len(node):
                inner, number = get_args(kind)[0], int(key)
                changed = _set(inner, node[number], rest, text, path, faults)
                return [*node[:number], changed, *node[number + 1 :]]
            told = f"there is no entry {key!r}: it has {len(node)}, counted from 0"
    faults.append(f"{path}: {told}")
    return node


def _kinds(declared: Any) -> list[Any]:
    """The types that a declaration allows, without None and without limits."""
    if get_origin(declared) is Annotated:
        return _kinds(get_args(declared)[0])
    if get_origin(declared) in (Union, types.UnionType):
        return [inner for kind in get_args(declared) if kind is not type(None) for inner in _kinds(kind)]
    return [declared]
