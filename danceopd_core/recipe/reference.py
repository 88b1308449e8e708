"""Renders docs/recipe.md, the reference of all settings, from the schema and the documentation of its fields."""

from __future__ import annotations

import ast
import inspect
import json
import types
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from . import schema, updating
from .from_graph import SAME_NAME, WIDGETS, widget
from .migration import RENAMED
from .reference_text import EXAMPLE, INTRODUCTION

TRAIN = "Train Student LoRA"
SCALARS = {str: "text", int: "whole number", float: "number", bool: "true or false"}


@dataclass(frozen=True)
class Section:
    """A dataclass of the schema. keys: where a recipe has it. nodes: what sets it in ComfyUI."""

    of: type
    keys: tuple[str, ...]
    nodes: str

    @property
    def title(self) -> str:
        return ", ".join(f"`{key}`" for key in self.keys) or "The recipe"

    @property
    def link(self) -> str:
        """To the heading, whose anchor is as GitHub makes it."""
        anchor = "".join(c for c in self.title.lower().replace(" ", "-") if c.isalnum() or c in "-_")
        return f"[{self.of.__name__}](#{anchor})"


SECTIONS = (
    Section(schema.Recipe, (), TRAIN),
    Section(schema.Route, ("routes[]",), "Route Selector; Mixed Field for several teachers"),
    Section(schema.Bucket, ("routes[].bucket", "learned_router.bucket"), "Prompt Bucket; Bucket from Conditioning"),
    Section(schema.Stream, ("routes[].bucket.stream",), "on the command line only"),
    Section(
        schema.Teacher,
        ("teachers.<name>",),
        "Teacher Field; Guided Field for the guidance; Field from Another Model for the model",
    ),
    Section(schema.Student, ("student",), "Student LoRA"),
    Section(schema.Optimizer, ("optimizer",), TRAIN),
    Section(schema.Query, ("query",), TRAIN),
    Section(schema.Shift, ("sigmas",), TRAIN),
    Section(schema.LearnedRouter, ("learned_router",), "Learned Router"),
)


def reference() -> str:
    """The Markdown of docs/recipe.md."""
    renamed = "\n".join(f"- `{old}` is now `{new}`." for old, new in RENAMED.items())
    introduction = INTRODUCTION.format(example=EXAMPLE.rstrip(), renamed=renamed).rstrip()
    return "\n\n".join([introduction, *map(_section, SECTIONS)]) + "\n"


def field_docs() -> dict[str, dict[str, str]]:
    """Class -> field -> the text below the field in the schema's source, on one line."""
    trees = [ast.parse(inspect.getsource(module)) for module in (schema, updating)]
    docs: dict[str, dict[str, str]] = {}
    for cls in (node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)):
        docs[cls.name] = {}
        for field, below in zip(cls.body, cls.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
                docs[cls.name][field.target.id] = " ".join(ast.literal_eval(below.value).split())
    return docs


def _section(section: Section) -> str:
    rows = [["setting", "type", "default", "limits", "meaning", "in ComfyUI"], ["---"] * 6, *_rows(section)]
    table = "\n".join(f"| {' | '.join(cells)} |".replace("|  |", "| |") for cells in rows)
    return f"## {section.title}\n\n{section.of.__doc__} In ComfyUI: {section.nodes}.\n\n{table}"


def _rows(section: Section) -> Iterator[list[str]]:
    docs, hints = field_docs()[section.of.__name__], get_type_hints(section.of, include_extras=True)
    for field in fields(section.of):
        declared, key = hints[field.name], ".".join([*section.keys[:1], field.name])
        limits = "; ".join(dict.fromkeys(_limits(declared)))
        yield [f"`{field.name}`", _type(declared), _default(field), limits, docs[field.name], _inputs(key, declared)]


def _type(declared: Any) -> str:
    origin, arguments = get_origin(declared), get_args(declared)
    if origin is Annotated:
        return _type(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join("null" if kind is type(None) else _type(kind) for kind in arguments)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is dict:
        return f"mapping: name to {_type(arguments[1])}"
    if origin is tuple:
        return f"list{'' if arguments[-1] is Ellipsis else f' of {len(arguments)}'}: {_type(arguments[0])}"
    return SCALARS[declared] if declared in SCALARS else next(s.link for s in SECTIONS if s.of is declared)


def _limits(declared: Any) -> Iterator[str]:
    """Those of a declared type and of its entries, but not of other sections."""
    origin = get_origin(declared)
    if origin is Annotated:
        yield from map(str, declared.__metadata__)
    elif origin is not Literal:
        entries = "entries " if origin in (dict, tuple) else ""
        yield from (f"{entries}{limit}" for inner in get_args(declared) for limit in _limits(inner))


def _default(field: Field) -> str:
    if field.default_factory is not MISSING:
        return "`{}`"
    if field.default is MISSING:
        return "required"
    return f"`{field.default if field.default and isinstance(field.default, str) else json.dumps(field.default)}`"


def _inputs(key: str, declared: Any) -> str:
    """The nodes' inputs that set a recipe key; "" where they are listed in a section of its own, or where none does."""
    below = [name for other, name in WIDGETS.items() if other.startswith(f"{key}.")]
    if is_dataclass(declared) and below:
        return ""
    names = [key] if key in SAME_NAME else [widget(key)] if widget(key) != key else below
    nodes = {section.nodes for section in SECTIONS}
    return "; ".join(name if ", " in name or name in nodes else f"{TRAIN}, {name}" for name in names)
