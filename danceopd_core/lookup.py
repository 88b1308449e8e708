"""Looks up user-given names in the tables of this package."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

from .errors import InputError

T = TypeVar("T")


def lookup(table: Mapping[str, T], name: str, what: str) -> T:
    """The entry of this name; InputError, with the nearest name and the whole table, for an unknown one."""
    if name not in table:
        near = get_close_matches(name.lower(), table, n=1, cutoff=0.5)
        guess = f" (did you mean {near[0]!r}?)" if near else ""
        raise InputError(f"no {what} is named {name!r}{guess}: there are {', '.join(table)}")
    return table[name]
