"""What a setting of a model's configuration may be: kinds of values with their ranges."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..errors import shown

Bound = Literal["", "tensors"]
"""What of the weights' header a number may not exceed: for layers, how many tensors there are."""


@dataclass(frozen=True)
class Rule:
    """kind: what the value has to be, to follow "expected". settings: of a mapping, the rules of what is in it."""

    kind: str
    fits: Callable[[Any], bool]
    bound: Bound = ""
    settings: Mapping[str, Rule] | None = None


Rules = Mapping[str, Rule]


def whole(low: int, high: int, bound: Bound = "") -> Rule:
    return Rule(f"a whole number from {low} to {high}", lambda value: _is_whole(value) and low <= value <= high, bound)


def number(low: float = -1e30, high: float = 1e30) -> Rule:
    def fits(value: Any) -> bool:
        return (_is_whole(value) or isinstance(value, float)) and low <= value <= high and math.isfinite(value)

    return Rule(f"a number from {low:g} to {high:g}", fits)


def one_of(*names: str) -> Rule:
    return Rule(" or ".join(names), lambda value: isinstance(value, str) and value in names)


def exactly(expected: Any) -> Rule:
    return Rule(repr(expected), lambda value: type(value) is type(expected) and value == expected)


def several(rule: Rule, low: int, high: int) -> Rule:
    """A list of `low` to `high` values."""

    def fits(value: Any) -> bool:
        return isinstance(value, list) and low <= len(value) <= high and all(rule.fits(part) for part in value)

    count = f"{low}" if low == high else f"{low} to {high}"
    return Rule(f"a list of {count} values, each {rule.kind}", fits, rule.bound)


def either(*rules: Rule) -> Rule:
    kind = " or ".join(rule.kind for rule in rules)
    return Rule(kind, lambda value: any(rule.fits(value) for rule in rules), rules[0].bound)


def optional(rule: Rule) -> Rule:
    """The rule's values, or null."""
    return replace(rule, kind=f"{rule.kind}, or null", fits=lambda value: value is None or rule.fits(value))


def mapping(settings: Rules) -> Rule:
    return Rule("a mapping", lambda value: isinstance(value, dict), settings=settings)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


SWITCH = Rule("true or false", lambda value: isinstance(value, bool))
TEXT = Rule("text of at most 65536 characters", lambda value: isinstance(value, str) and len(value) <= 65536)
WIDTH = whole(1, 2**18)
LAYERS = whole(1, 1024, "tensors")
SOME_LAYERS = whole(0, 1024, "tensors")


def faults(config: Mapping[str, Any], rules: Rules, path: str = "") -> Iterator[str]:
    """A line for each setting that is not what its rule says; settings without a rule are not looked at."""
    for name, rule in rules.items():
        if name not in config:
            continue
        value = config[name]
        if not rule.fits(value):
            yield f"{path}{name} is {_short(value)}, expected {rule.kind}"
        elif rule.settings is not None and value is not None:
            yield from faults(value, rule.settings, f"{path}{name}.")


def bounded(config: Mapping[str, Any], rules: Rules, path: str = "") -> Iterator[tuple[str, int, Bound]]:
    """The numbers that weights bound, with their names. config: without faults."""
    for name, rule in rules.items():
        value = config.get(name)
        if rule.settings is not None and value is not None:
            yield from bounded(value, rule.settings, f"{path}{name}.")
        elif rule.bound:
            parts: list[Any] = value if isinstance(value, list) else [value]
            yield from ((f"{path}{name}", part, rule.bound) for part in parts if _is_whole(part))


def known(config: Mapping[str, Any], rules: Rules) -> dict[str, Any]:
    """The settings that have a rule."""
    found = {}
    for name in rules.keys() & config.keys():
        inner = rules[name].settings
        found[name] = config[name] if inner is None or config[name] is None else known(config[name], inner)
    return found


def _short(value: Any) -> str:
    if isinstance(value, dict | list):
        return f"a {'mapping' if isinstance(value, dict) else 'list'} of {len(value)}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else f"a number of {int(value.bit_length() * 0.302) + 1} digits"
    return shown(re.sub(r"\s+", " ", repr(value[:60] if isinstance(value, str) else value)), 60)
