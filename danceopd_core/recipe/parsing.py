"""Frozen dataclasses from text: every scalar stays text until a declared type reads it; all faults are collected.

So `no` is False only where a bool is declared, `1e-4` is a number wherever one is, and a prompt "no" is text.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from ..errors import InputError


class _Faulty:
    def __repr__(self) -> str:
        return "FAULTY"


FAULTY: Any = _Faulty()
"""Stands where no value could be made, so that what surrounds it is still checked."""

EMPTY = ("", "~", "null", "none")
SWITCHES = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def sound(*values: Any) -> bool:
    """Whether all the values could be made."""
    return not any(value is FAULTY for value in values)


def refuse(what: str, faults: Iterable[str]) -> None:
    """InputError with one line for each fault, if there is one."""
    lines = list(faults)
    if lines:
        count = "a fault" if len(lines) == 1 else f"{len(lines)} faults"
        raise InputError("\n  ".join([f"{what} has {count}:", *lines]))


def guess(name: str, known: Iterable[str]) -> str:
    """What a person may have meant, for an error message; empty if nothing is near."""
    near = get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""


def short(value: Any) -> str:
    """A value in one line of an error message."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value[:60]) if isinstance(value, str) else repr(value)
    return text if len(text) <= 62 else text[:60] + "..."


@dataclass(frozen=True)
class Range:
    """A limit for Annotated: from low to high, without low if `above`, without high if `below`."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __call__(self, value: float) -> str:
        if (self.low < value if self.above else self.low <= value) and (
            value < self.high if self.below else value <= self.high
        ):
            return ""
        low = "" if self.low == -math.inf else f"above {self.low}" if self.above else f"at least {self.low}"
        high = "" if self.high == math.inf else f"below {self.high}" if self.below else f"at most {self.high}"
        return f"{short(value)} is out of range: it must be {' and '.join(filter(None, (low, high)))}"


def filled(value: str) -> str:
    """A limit for Annotated: text that is not blank."""
    return "" if value.strip() else "it must not be empty"


class _Loader(yaml.BaseLoader):
    """YAML whose scalars all stay text. Tags are ignored, so nothing is ever run."""

    def __init__(self, text: str, faults: list[str]) -> None:
        super().__init__(text)
        self.faults = faults

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                self.faults.append(f"line {key.start_mark.line + 1}: {short(key.value)} is given twice")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str, faults: list[str]) -> Any:
    """The document as dicts, lists and text; None if it is empty. Keys given twice are faults."""
    try:
        loader = _Loader(text, faults)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "somewhere"
        faults.append(f"{where}: no YAML, {' '.join(filter(None, (error.context, error.problem)))}")
    except (yaml.YAMLError, RecursionError) as error:
        faults.append(f"no YAML: {' '.join(str(error).split())}")
    return FAULTY


def build(declared: Any, value: Any, path: str, faults: list[str]) -> Any:
    """`value`, of dicts, lists, text and plain Python values, as the declared type, or FAULTY.

    A list, a mapping or a dataclass is made around the parts of it that are FAULTY. Each fault is a line
    that begins with the path of the part at fault.
    """
    origin, arguments = get_origin(declared), get_args(declared)
    if value is FAULTY:
        return FAULTY
    if origin is Annotated:
        made = build(arguments[0], value, path, faults)
        told = "" if made is FAULTY else next(filter(None, (limit(made) for limit in arguments[1:])), "")
        return _fault(faults, path, told) if told else made
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
        near = guess(value, arguments) if isinstance(value, str) else ""
        return _fault(faults, path, f"{short(value)} is none of {', '.join(arguments)}{near}")
    made = SCALARS[declared](value)
    return _fault(faults, path, f"{made.needed}, not {short(value)}") if isinstance(made, _Needed) else made


def _fault(faults: list[str], path: str, told: str) -> Any:
    faults.append(f"{path or 'it'}: {told}")
    return FAULTY


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in EMPTY)


def _join(path: str, key: Any) -> str:
    key = key if isinstance(key, str) and re.fullmatch(r"[\w -]{1,60}", key) else short(key)
    return f"{path}.{key}" if path else key


def _dataclass(declared: Any, value: Any, path: str, faults: list[str]) -> Any:
    value = {} if _empty(value) else value
    if not isinstance(value, Mapping):
        return _fault(faults, path, f"settings by name are needed, not {short(value)}")
    hints = get_type_hints(declared, include_extras=True)
    unknown = [key for key in value if key not in hints]
    for key in unknown:
        faults.append(f"{_join(path, key)}: {unknown_name(declared, key)}")
    meant = {name for key in unknown for name in get_close_matches(str(key).lower(), hints, n=1)}
    made = {}
    for field in fields(declared):
        if field.name in value:
            made[field.name] = build(hints[field.name], value[field.name], _join(path, field.name), faults)
        elif unknown:  # it may have been meant by the unknown name
            made[field.name] = FAULTY
        if field.name not in value and field.default is MISSING and field.default_factory is MISSING:
            made[field.name] = FAULTY
            if field.name not in meant:
                _fault(faults, _join(path, field.name), "it is missing and has no default")
    return declared(**made)


def unknown_name(declared: Any, key: Any) -> str:
    """Why a dataclass has no such setting, with the one that may have been meant, here or further down."""
    names = [field.name for field in fields(declared)]
    deeper = [path for path in _paths(declared) if path.rpartition(".")[2] == key]
    near = guess(str(key), names) or (f" (did you mean {deeper[0]!r}?)" if deeper else "")
    return f"there is no such setting{near or ': there are ' + ', '.join(names)}"


def _paths(declared: Any) -> Iterator[str]:
    for name, hint in get_type_hints(declared).items():
        yield name
        if is_dataclass(hint):
            yield from (f"{name}.{below}" for below in _paths(hint))


def _mapping(declared: Any, value: Any, path: str, faults: list[str]) -> Any:
    value = {} if _empty(value) else value
    if not isinstance(value, Mapping):
        return _fault(faults, path, f"entries by name are needed, not {short(value)}")
    for key in value:
        if not isinstance(key, str) or not key.strip():
            _fault(faults, path, f"{short(key)} is no name")
    return {key: build(declared, part, _join(path, key), faults) for key, part in value.items()}


def _tuple(arguments: tuple[Any, ...], value: Any, path: str, faults: list[str]) -> Any:
    value = [] if _empty(value) else value
    if not isinstance(value, list | tuple):
        return _fault(faults, path, f"a list is needed, not {short(value)}: write [..., ...]")
    if arguments[-1] is Ellipsis:
        return tuple(build(arguments[0], part, f"{path}[{i}]", faults) for i, part in enumerate(value))
    if len(value) != len(arguments):
        return _fault(faults, path, f"a list of {len(arguments)} is needed, not {short(value)}")
    made = tuple(
        build(declared, part, f"{path}[{i}]", faults)
        for i, (declared, part) in enumerate(zip(arguments, value, strict=True))
    )
    return made if sound(*made) else FAULTY


@dataclass(frozen=True)
class _Needed:
    needed: str


def _text(value: Any) -> str | _Needed:
    return value if isinstance(value, str) else _Needed("text is needed")


def _whole(value: Any) -> int | _Needed:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    try:
        return int(value) if isinstance(value, str) else _of_float(value)
    except ValueError:
        return _of_float(value)


def _of_float(value: Any) -> int | _Needed:
    number = _number(value)
    whole = isinstance(number, float) and number.is_integer()
    return int(number) if whole else _Needed("a whole number is needed")  # type: ignore[arg-type]


def _number(value: Any) -> float | _Needed:
    if isinstance(value, bool) or not isinstance(value, Real | str):
        return _Needed("a number is needed")
    try:
        number = float(value)
    except ValueError:
        return _Needed("a number is needed")
    except OverflowError:
        number = math.inf
    return number if math.isfinite(number) else _Needed("a finite number is needed")


def _switch(value: Any) -> bool | _Needed:
    if isinstance(value, bool):
        return value
    known = isinstance(value, str) and value.lower() in SWITCHES
    return SWITCHES[value.lower()] if known else _Needed("true or false is needed")


SCALARS: dict[type, Callable[[Any], Any]] = {str: _text, int: _whole, float: _number, bool: _switch}


def plain(value: Any, sparse: bool = False) -> Any:
    """Dataclasses and tuples as dicts and lists, for a file; sparse: without what has its default value."""
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
