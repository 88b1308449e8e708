"""Parses the regular expressions that `patterns` matches into states: one for each way on through a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..errors import InputError, shown

MOST_CHARACTERS = 1000
MOST_STATES = 500
"""Of one pattern with its repetitions written out."""
MOST_DEPTH = 20
CLASSES = {
    "d": str.isdecimal,
    "w": lambda c: c.isalnum() or c == "_",
    "s": str.isspace,
}
LITERAL_ESCAPES = frozenset(r"\.^$*+?{}[]()|-_/ ")
Test = Callable[[str], bool]


class PatternStep(NamedTuple):
    """test: of the next character, None for a step without one. anchor: "^" or "$", where such a step is allowed."""

    test: Test | None
    to: list[int]
    anchor: str = ""


class PatternStates:
    """The states of one pattern, of which `start` is the first and `end` the last.

    InputError, as a predicate about the pattern, if it is not of the subset.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise InputError(f"has {len(text)} characters, more than {MOST_CHARACTERS}")
        self._text, self._at, self._depth = text, 0, 0
        self.states: list[PatternStep] = []
        self.start, self.end = self._alternatives()
        if self._at < len(text):
            raise InputError(f"{shown(text, 60)!r} closes a group that it does not open")

    def _add(self, test: Test | None = None, to: tuple[int, ...] = (), anchor: str = "") -> int:
        if len(self.states) >= MOST_STATES:
            raise InputError(f"{shown(self._text, 60)!r} has too many repetitions")
        self.states.append(PatternStep(test, list(to), anchor))
        return len(self.states) - 1

    def _link(self, start: int, *to: int) -> None:
        self.states[start].to.extend(to)

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self) -> str:
        if self._at >= len(self._text):
            raise InputError(f"{shown(self._text, 60)!r} is not a complete regular expression")
        self._at += 1
        return self._text[self._at - 1]

    def _alternatives(self) -> tuple[int, int]:
        start, end = self._add(), self._add()
        while True:
            first, last = self._sequence()
            self._link(start, first)
            self._link(last, end)
            if self._peek() != "|":
                return start, end
            self._at += 1

    def _sequence(self) -> tuple[int, int]:
        start = end = self._add()
        while self._peek() not in ("", "|", ")"):
            first, last = self._repeated()
            self._link(end, first)
            end = last
        return start, end

    def _repeated(self) -> tuple[int, int]:
        begin = self._at
        first, last = self._atom()
        after = self._at
        low, high = self._times()
        if self._text[begin] in "^$" and after < self._at:
            raise InputError(f"{shown(self._text, 60)!r} repeats an anchor")
        if (low, high) == (1, 1):
            return first, last
        start = end = self._add()
        for copy in range(low if high is None else high):
            if copy:
                self._at = begin
                first, last = self._atom()
            following = self._add()
            self._link(end, first)
            self._link(last, following)
            if copy >= low:
                self._link(end, following)
            end = following
        if high is None:
            self._link(end, first)  # again, of the last copy
            if not low:
                self._link(last, end)
        self._at = after
        self._times()
        return start, end

    def _times(self) -> tuple[int, int | None]:
        kinds: dict[str, tuple[int, int | None]] = {"*": (0, None), "+": (1, None), "?": (0, 1)}
        sign = self._peek()
        if sign in kinds:
            self._at += 1
            found = kinds[sign]
        elif sign == "{":
            close = self._text.find("}", self._at)
            inside = self._text[self._at + 1 : close] if close >= 0 else ""
            low, comma, high = inside.partition(",")
            if not inside.isascii() or len(inside) > 8 or not (low + high).isdecimal():
                raise InputError(f"{shown(self._text, 60)!r} has a brace that is no number of repetitions")
            self._at = close + 1
            found = (int(low or 0), int(high) if high else None if comma else int(low))
            if found[1] is not None and found[1] < found[0]:
                raise InputError(f"{shown(self._text, 60)!r} repeats from {found[0]} to {found[1]} times")
        else:
            return 1, 1
        if self._peek() == "?":  # as few as possible: the same names match
            self._at += 1
        if self._peek() and self._peek() in "*+?{":
            raise InputError(f"{shown(self._text, 60)!r} repeats a repetition")
        return found

    def _atom(self) -> tuple[int, int]:
        character = self._take()
        if character == "(":
            return self._group()
        end = self._add()
        if character in "^$":
            return self._add(None, (end,), character), end
        if character in "*+?{":
            raise InputError(f"{shown(self._text, 60)!r} repeats nothing")
        if character == ".":
            test: Test = _not_a_line_end
        elif character == "[":
            test = self._class()
        elif character == "\\":
            test = self._escape()
        else:
            test = character.__eq__
        return self._add(test, (end,)), end

    def _group(self) -> tuple[int, int]:
        if self._peek() == "?":
            if self._text[self._at : self._at + 2] != "?:":
                raise InputError(f"{shown(self._text, 60)!r} uses (?...), which is not read")
            self._at += 2
        self._depth += 1
        if self._depth > MOST_DEPTH:
            raise InputError(f"{shown(self._text, 60)!r} has groups more than {MOST_DEPTH} deep in each other")
        inside = self._alternatives()
        self._depth -= 1
        if self._take() != ")":
            raise InputError(f"{shown(self._text, 60)!r} is not a complete regular expression")
        return inside

    def _escape(self) -> Test:
        character = self._take()
        if character.lower() in CLASSES:
            kind = CLASSES[character.lower()]
            return kind if character.islower() else lambda c: not kind(c)
        if character not in LITERAL_ESCAPES:
            raise InputError(f"{shown(self._text, 60)!r} uses \\{shown(character)}, which is not read")
        return character.__eq__

    def _class(self) -> Test:
        negated = self._peek() == "^"
        self._at += negated
        tests: list[Test] = []
        while True:
            character = self._take()
            if character == "]" and tests:
                break
            if character == "\\":
                escaped = self._peek()
                test = self._escape()
                if self._peek() == "-" and escaped.lower() in CLASSES:
                    raise InputError(f"{shown(self._text, 60)!r} has a range of a class")
                low = escaped
            else:
                low, test = character, character.__eq__
            if self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._take()
                if high in "\\[" or high < low:
                    raise InputError(f"{shown(self._text, 60)!r} has a range that is not read")
                test = _between(low, high)
            tests.append(test)
        return (lambda c: not any(test(c) for test in tests)) if negated else lambda c: any(test(c) for test in tests)


def _not_a_line_end(character: str) -> bool:
    return character != "\n"


def _between(low: str, high: str) -> Test:
    return lambda c: low <= c <= high
