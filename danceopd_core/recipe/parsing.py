"""Builds frozen dataclasses from text and plain values, as their declared types say; all faults are collected.

Every scalar stays text until a declared type reads it. So `no` is False only where a bool is declared, `1e-4` is a
number wherever one is, and a prompt "no" is text.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import Fault, encodable
from ..lookup import did_you_mean
from .faulty import FAULTY, short, sound

EMPTY = ("", "~", "null", "none")
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def build(declared: Any, value: Any, path: str, faults: list[Fault]) -> Any:
    """`value`, of dicts, lists, text and plain Python values, as the declared type; FAULTY if it cannot be.

    A list, a mapping or a dataclass is built even if parts of it are FAULTY. path: the recipe key of the value.
    """
    origin, arguments = get_origin(declared), get_args(declared)
    if value is FAULTY:
        return FAULTY
    if origin is Annotated:
        built = build(arguments[0], value, path, faults)
        message = "" if built is FAULTY else next(filter(None, (limit(built) for limit in arguments[1:])), "")
        return _fault(faults, path, message) if message else built
    if origin in (Union, types.UnionType):
        if type(None) in arguments and _empty(value):
            return None
        takes_mapping = [kind for kind in arguments if get_origin(kind) is dict or is_dataclass(kind)]
        others = [kind for kind in arguments if kind is not type(None) and kind not in takes_mapping]
        chosen = takes_mapping if takes_mapping and (isinstance(value, Mapping) or not others) else others
        return build(chosen[0], value, path, faults)
    if is_dataclass(declared):
        return _dataclass(declared, value, path, faults)
    if origin is dict:
        return _mapping(arguments[1], value, path, faults)
    if origin is tuple:
        return _tuple(arguments, value, path, faults)
    if origin is Literal:
        if value in arguments:
            return value
        near = did_you_mean(value, arguments) if isinstance(value, str) else ""
        return _fault(faults, path, f"{short(value)} is not one of {', '.join(arguments)}{near}")
    scalar = SCALARS[declared](value)
    return _fault(faults, path, f"expected {scalar.kind}, not {short(value)}") if isinstance(scalar, _Not) else scalar


def _fault(faults: list[Fault], path: str, message: str) -> Any:
    faults.append(Fault(path, message))
    return FAULTY


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in EMPTY)


def _join(path: str, key: Any) -> str:
    key = key if isinstance(key, str) and re.fullmatch(r"[\w -]{1,60}", key) else short(key)
    return f"{path}.{key}" if path else key


def _dataclass(declared: Any, value: Any, path: str, faults: list[Fault]) -> Any:
    value = {} if _empty(value) else value
    if not isinstance(value, Mapping):
        return _fault(faults, path, f"expected a mapping of settings, not {short(value)}")
    hints = get_type_hints(declared, include_extras=True)
    unknown = [key for key in value if key not in hints]
    for key in unknown:
        _fault(faults, _join(path, key), unknown_setting(declared, key))
    meant = {name for key in unknown for name in get_close_matches(str(key).lower(), hints, n=1)}
    built = {}
    for field in fields(declared):
        if field.name in value:
            built[field.name] = build(hints[field.name], value[field.name], _join(path, field.name), faults)
        elif unknown:  # the unknown key may be a misspelling of this one
            built[field.name] = FAULTY
        if field.name not in value and field.default is MISSING and field.default_factory is MISSING:
            built[field.name] = FAULTY
            if field.name not in meant:
                _fault(faults, _join(path, field.name), "it is required, but missing")
    return declared(**built)


def unknown_setting(declared: Any, key: Any) -> str:
    """The message for a key that a dataclass does not have, with the similar one, here or further down."""
    names = [field.name for field in fields(declared)]
    deeper = [path for path in _paths(declared) if path.rpartition(".")[2] == key]
    near = did_you_mean(str(key), names) or (f" (did you mean {deeper[0]!r}?)" if deeper else "")
    return f"there is no such setting{near or ': there are ' + ', '.join(names)}"


def _paths(declared: Any) -> Iterator[str]:
    for name, hint in get_type_hints(declared).items():
        yield name
        if is_dataclass(hint):
            yield from (f"{name}.{below}" for below in _paths(hint))


def _mapping(declared: Any, value: Any, path: str, faults: list[Fault]) -> Any:
    value = {} if _empty(value) else value
    if not isinstance(value, Mapping):
        return _fault(faults, path, f"expected a mapping, not {short(value)}")
    for key in value:
        if not isinstance(key, str) or not key.strip() or not encodable(key):
            _fault(faults, path, f"{short(key)} is not a valid name: give text in UTF-8 that is not empty")
    return {key: build(declared, part, _join(path, key), faults) for key, part in value.items()}


def _tuple(arguments: tuple[Any, ...], value: Any, path: str, faults: list[Fault]) -> Any:
    value = [] if _empty(value) else value
    if not isinstance(value, list | tuple):
        return _fault(faults, path, f"expected a list, not {short(value)}: write [..., ...]")
    if arguments[-1] is Ellipsis:
        return tuple(build(arguments[0], part, f"{path}[{i}]", faults) for i, part in enumerate(value))
    if len(value) != len(arguments):
        return _fault(faults, path, f"expected a list of {len(arguments)}, not {short(value)}")
    built = tuple(
        build(declared, part, f"{path}[{i}]", faults)
        for i, (declared, part) in enumerate(zip(arguments, value, strict=True))
    )
    return built if sound(*built) else FAULTY


@dataclass(frozen=True)
class _Not:
    """A value is not of this kind."""

    kind: str


def _text(value: Any) -> str | _Not:
    if not isinstance(value, str):
        return _Not("text")
    return value if encodable(value) else _Not("text without halves of characters")


def _whole(value: Any) -> int | _Not:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    try:
        return int(value) if isinstance(value, str) else _of_float(value)
    except ValueError:
        return _of_float(value)


def _of_float(value: Any) -> int | _Not:
    number = _number(value)
    return int(number) if isinstance(number, float) and number.is_integer() else _Not("a whole number")


def _number(value: Any) -> float | _Not:
    if isinstance(value, bool) or not isinstance(value, Real | str):
        return _Not("a number")
    try:
        number = float(value)
    except ValueError:
        return _Not("a number")
    except OverflowError:
        number = math.inf
    return number if math.isfinite(number) else _Not("a finite number")


def _switch(value: Any) -> bool | _Not:
    if isinstance(value, bool):
        return value
    known = isinstance(value, str) and value.lower() in SWITCHES
    return SWITCHES[value.lower()] if known else _Not("true or false")


SCALARS: dict[type, Callable[[Any], Any]] = {str: _text, int: _whole, float: _number, bool: _switch}


def plain(value: Any, sparse: bool = False) -> Any:
    """The inverse of `build`: dataclasses and tuples as dicts and lists; sparse: without settings at their default."""
    if is_dataclass(value):
        parts = {field: value.__dict__[field.name] for field in fields(value)}
        return {
            field.name: plain(part, sparse) for field, part in parts.items() if not (sparse and part == _default(field))
        }
    if isinstance(value, Mapping):
        return {key: plain(part, sparse) for key, part in value.items()}
    return [plain(part, sparse) for part in value] if isinstance(value, list | tuple) else value


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
