"""The placeholder for values that could not be read, and how values appear in error texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class _Faulty:
    def __repr__(self) -> str:
        return "FAULTY"


FAULTY: Any = _Faulty()
"""Replaces a value that could not be read, so that the rest is still checked."""


def sound(*values: Any) -> bool:
    """Whether none of the values is FAULTY."""
    return not any(value is FAULTY for value in values)


def short(value: Any) -> str:
    """A value as it appears in an error text: one line of at most 65 characters."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    text = repr(value[:60]) if isinstance(value, str) else repr(value)
    return text if len(text) <= 62 else text[:60] + "..."
