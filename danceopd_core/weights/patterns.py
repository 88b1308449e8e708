"""Regular expressions from a LoRA's settings, matched in linear time: Python's own may run for ever on a hostile one.

A subset that covers what people and libraries write: characters, escapes, `.`, classes, groups, alternatives, the
anchors `^` and `$`, and repetition. All ways through a name are followed at once, so that none is tried twice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import InputError
from .pattern_states import MOST_STATES, PatternStates

MOST_PATTERNS = 4096
"""In one table; diffusers writes one for each layer, and no network has as many."""


class PatternTable:
    """The values of a mapping from patterns, by the first pattern whose end of a name it is, as peft looks them up."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        """InputError, as a predicate about the pattern, for one that is not of the subset."""
        if len(values) > MOST_PATTERNS:
            raise InputError(f"has {len(values)} patterns, more than {MOST_PATTERNS}")
        self._rows = [(_Plain(text) if _is_plain(text) else Pattern(text), value) for text, value in values.items()]
        if sum(row.size for row, _ in self._rows if isinstance(row, Pattern)) > 2 * MOST_STATES:
            raise InputError("has too many patterns with repetitions or alternatives")

    def get(self, name: str, default: Any = None) -> Any:
        """The value for the layer of this name."""
        return next((value for pattern, value in self._rows if pattern.ends(name)), default)


class _Plain:
    """A pattern of characters alone, of which `.` stands for any: what libraries write, one for each layer."""

    def __init__(self, text: str) -> None:
        self._whole = text.startswith("^")
        text = text.removeprefix("^").removesuffix("$")
        self._length = len(text)
        self._same = re.compile(re.escape(text).replace(r"\.", "."), re.DOTALL)  # without repetition: linear

    def ends(self, name: str) -> bool:
        rest = len(name) - self._length
        if rest < 0 or (rest and (self._whole or name[rest - 1] != ".")):
            return False
        return self._same.fullmatch(name, rest) is not None


def _is_plain(text: str) -> bool:
    return not set(r"\^$*+?{}[]()|") & set(text.removeprefix("^").removesuffix("$"))


class Pattern:
    """One compiled pattern. InputError, as a predicate about the pattern, if it is not of the subset."""

    def __init__(self, text: str) -> None:
        parsed = PatternStates(text)
        self._states, self._start, self._end = parsed.states, parsed.start, parsed.end
        self.size = len(self._states)
        self._steps: dict[tuple[frozenset[int], str], frozenset[int]] = {}

    def ends(self, name: str) -> bool:
        """Whether it matches the whole name or what follows one of its dots: peft's rule for ranks and alphas."""
        return self._match(name, ends=True)

    def covers(self, name: str) -> bool:
        """Whether it matches the whole name: peft's rule for target_modules."""
        return self._match(name, ends=False)

    def _match(self, name: str, ends: bool) -> bool:
        current = self._closed(frozenset({self._start}), True, not name)
        for place, character in enumerate(name):
            last = place == len(name) - 1
            key = (current, character + "$" * last + "." * ends)
            if key not in self._steps:
                found = set()
                for number in current:
                    state = self._states[number]
                    if state.test is not None and state.test(character):
                        found.update(state.to)
                if ends and character == ".":
                    found.add(self._start)
                self._steps[key] = self._closed(frozenset(found), False, last)
            current = self._steps[key]
        return self._end in current

    def _closed(self, states: frozenset[int], first: bool, last: bool) -> frozenset[int]:
        """With all that is reached without a character."""
        found, open_ = set(states), list(states)
        while open_:
            state = self._states[open_.pop()]
            if state.test is None and (not state.anchor or (first if state.anchor == "^" else last)):
                new = [number for number in state.to if number not in found]
                found.update(new)
                open_ += new
        return frozenset(found)
