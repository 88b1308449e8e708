"""Wildcards in prompts: `{red|blue}` and `__colour__`, a line of colour.txt, drawn by the run's seed.

They are drawn when the rows are read, a fixed number of times for each row: a run knows its prompts before it encodes
them, and a resumed run has the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import InputError, shown
from ..outside import read_text
from .csv_rows import CsvRow, CsvRows
from .roots import Roots, file_of

CHOICE = re.compile(r"\{([^{}]*)\}")
PART = r"[^\W_](?:[^\W_]|-|_(?!_))*"
FILE = re.compile(rf"__({PART}(?:/{PART})*)__")
DEEPEST = 50
"""Wildcards in each other, and in files in each other."""
MOST_ITEMS = 200_000
MOST_TEXT = 10_000
"""Characters of a drawn prompt."""


def has_wildcards(prompt: str) -> bool:
    """Whether a prompt holds something that would be drawn."""
    return any("|" in match[1] for match in CHOICE.finditer(prompt)) or bool(FILE.search(prompt))


def drawn(rows: CsvRows, count: int, seed: int, folder: str | None, roots: Roots = None) -> CsvRows:
    """Each row `count` times, its wildcards drawn anew each time; the rows themselves for 0.

    Rows without wildcards are repeated as often, so that all keep their share. folder: of the files; None: there is
    none. InputError, naming the row, for a wildcard that cannot be drawn, and for more than `MOST_ITEMS` prompts.
    """
    if not count:
        return rows
    if len(rows) * count > MOST_ITEMS:
        raise InputError(
            f"wildcards: {len(rows)} rows, {count} times each, are more than {MOST_ITEMS}: lower wildcards"
        )
    lines = _Lines(folder, roots)
    return tuple(_row(row, number, seed, lines) for row in rows for number in range(count))


def _row(row: CsvRow, number: int, seed: int, lines: _Lines) -> CsvRow:
    if not has_wildcards(row.item.prompt):
        return row

    def choose(place: int, options: int) -> int:
        digest = hashlib.sha256(repr((seed, row.number, row.item.prompt, number, place)).encode()).digest()
        return int.from_bytes(digest[:8], "big") % options

    try:
        return CsvRow(row.number, replace(row.item, prompt=expanded(row.item.prompt, choose, lines)))
    except InputError as error:
        raise InputError(f"row {row.number}: {error}") from None


def expanded(prompt: str, choose: Callable[[int, int], int], lines: Callable[[str], Sequence[str]]) -> str:
    """The prompt with every wildcard drawn, the innermost first.

    choose: (number of the draw, number of options) -> an index. lines: of the file of a name.
    """
    for place in range(DEEPEST * 100):
        choice = next((match for match in CHOICE.finditer(prompt) if "|" in match[1]), None)
        match = choice or FILE.search(prompt)
        if match is None:
            return " ".join(prompt.split())
        options = match[1].split("|") if choice else lines(match[1])
        prompt = prompt[: match.start()] + options[choose(place, len(options))].strip() + prompt[match.end() :]
        if len(prompt) > MOST_TEXT or place >= DEEPEST * 20:
            break
    raise InputError(f"the wildcards of '{shown(prompt, 80)}' do not come to an end: a file must not name itself")


class _Lines:
    """The lines of wildcard files, each read once; empty ones and comments (#) left out."""

    def __init__(self, folder: str | None, roots: Roots) -> None:
        self._folder, self._roots = folder, roots
        self._read: dict[str, tuple[str, ...]] = {}

    def __call__(self, name: str) -> tuple[str, ...]:
        if name not in self._read:
            if self._folder is None:
                raise InputError(f"__{name}__ is a wildcard of a file, and no folder of wildcards is given")
            file = file_of(f"{name}.txt", Path(self._folder), self._roots)
            text = read_text(file, "the wildcards")
            lines = tuple(line.strip() for line in text.splitlines() if line.strip() and line.lstrip()[0] != "#")
            if not lines:
                raise InputError(f"{file} holds no lines: write one option a line")
            self._read[name] = lines
        return self._read[name]
