"""Regular expressions from a LoRA's settings, matched in linear time: Python's own may run for ever on a hostile one.

A subset that covers what people and libraries write: characters, escapes, `.`, classes, groups, alternatives, the
anchors `^` and `$`, and repetition. All ways through a name are followed at once, so that none is tried twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import InputError, shown

MOST_CHARACTERS = 1000
MOST_STATES = 500
"""Of one pattern with its repetitions written out."""
MOST_DEPTH = 20
MOST_PATTERNS = 4096
"""In one table; diffusers writes one for each layer, and no network has as many."""
CLASSES = {
    "d": str.isdecimal,
    "w": lambda c: c.isalnum() or c == "_",
    "s": str.isspace,
}
LITERAL_ESCAPES = frozenset(r"\.^$*+?{}[]|()-_/ ")
Test = Callable[[str], bool]


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
        self._text = text.removeprefix("^").removesuffix("$")

    def ends(self, name: str) -> bool:
        rest = len(name) - len(self._text)
        if rest < 0 or (rest and (self._whole or name[rest - 1] != ".")):
            return False
        return all(own in (".", other) for own, other in zip(self._text, name[rest:], strict=True))


def _is_plain(text: str) -> bool:
    return not set(r"\^$*+?{}[]()|") & set(text.removeprefix("^").removesuffix("$"))


class _State(NamedTuple):
    """test: of the next character, None for a step without one. anchor: "^" or "$", where such a step is allowed."""

    test: Test | None
    to: list[int]
    anchor: str = ""


class Pattern:
    """One compiled pattern. InputError, as a predicate about the pattern, if it is not of the subset."""

    def __init__(self, text: str) -> None:
        if len(text) > MOST_CHARACTERS:
            raise InputError(f"has {len(text)} characters, more than {MOST_CHARACTERS}")
        self._text, self._at, self._depth = text, 0, 0
        self._states: list[_State] = []
        start, end = self._alternatives()
        if self._at < len(text):
            raise InputError(f"{shown(text, 60)!r} closes a group that it does not open")
        self._start, self._end, self.size = start, end, len(self._states)
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

    def _add(self, test: Test | None = None, to: tuple[int, ...] = (), anchor: str = "") -> int:
        if len(self._states) >= MOST_STATES:
            raise InputError(f"{shown(self._text, 60)!r} has too many repetitions")
        self._states.append(_State(test, list(to), anchor))
        return len(self._states) - 1

    def _link(self, start: int, *to: int) -> None:
        self._states[start].to.extend(to)

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
