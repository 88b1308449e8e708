"""Looks up names that a user writes in the tables of this package."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import TypeVar

from .errors import InputError

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """The entry of this name; InputError, with the nearest name and the whole table, for an unknown one."""
    if name not in table:
        raise InputError(f"no {what} is named {name!r}{did_you_mean(name, table)}: there are {', '.join(table)}")
    return table[name]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name closest to `name` as part of an error text; "" if none is close."""
    near = get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f" (did you mean {near[0]!r}?)" if near else ""
