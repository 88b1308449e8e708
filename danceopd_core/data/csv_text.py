"""Reads CSV text strictly: what a lenient reader would swallow or lose in silence is a fault that names its line."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError, shown
from ..outside import read_lines

SOURCE_WORDS = {"source", "src", "input", "image", "img", "picture", "pic", "photo"}
TARGET_WORDS = {"target", "tgt", "output", "edited", "result"}
FILE_WORDS = {"path", "file", "filename", "name", "url"}
MOST_COLUMNS = 1000
TASK_WORDS = {"task", "tasks"}
PROMPT_WORDS = {"prompts", "text", "caption", "captions", "instruction", "instructions"}


class TextRow(NamedTuple):
    """A row by column. number: the line of the file at which it ends; the header is line 1. longer: whether it has
    more cells than the header; they are left out."""

    number: int
    cells: Mapping[str, str]
    longer: bool = False


class CsvText:
    """A CSV file: its columns, and its rows in order, empty lines left out.

    Names of columns are trimmed, and so is what stands before a cell. InputError for a file that cannot be read, a
    column that is there twice, and, while the rows are read, for a quote that is not closed or not followed by a comma.
    """

    def __init__(self, path: Path, lines: Iterable[str] | None = None) -> None:
        """lines: of the file with their ends, which may be part of a quoted cell; None: to be read."""
        self._path = path
        self._reader = strict_reader(read_lines(path, "the CSV file") if lines is None else lines)
        self.columns = [name.strip() for name in self._next() or ()]
        if len(self.columns) > MOST_COLUMNS:
            raise InputError(f"{path} has {len(self.columns)} columns, more than {MOST_COLUMNS}: is it a CSV file?")
        twice = sorted(name for name, count in Counter(self.columns).items() if name and count > 1)
        if twice:
            raise InputError(f"{path} has the column {twice[0]} twice: leave one of them out")

    def rows(self) -> Iterator[TextRow]:
        """The rows that are left."""
        while (cells := self._next()) is not None:
            if cells:
                yield TextRow(self._reader.line_num, named(self.columns, cells), len(cells) > len(self.columns))

    def _next(self) -> list[str] | None:
        first = self._reader.line_num + 1
        try:
            return next(self._reader, None)
        except csv.Error as error:
            reason = str(error)
        if reason == "unexpected end of data":
            reason = "its quote is not closed: close it, or write a quote as two"
        elif "expected after" in reason:
            reason = 'a quote in it is followed by text: write a quote within "quotes" as two, "" for "'
        raise InputError(
            f"{self._path} is not a readable CSV file: the row that begins in line {first}: {shown(reason)}"
        )


def named(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    """The cells by the names of their columns."""
    return dict.fromkeys(columns, "") | dict(zip(columns, cells, strict=False))


def strict_reader(lines: Iterable[str]) -> Any:
    """Cells without what stands before them; csv.Error for a quote that is not closed, or not followed by a comma."""
    return csv.reader(lines, strict=True, skipinitialspace=True)


def look_alikes(columns: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Columns that are unknown and look like a known one that is not there, which they would be read as if they were.

    Each with that one.
    """
    missing = [name for name in known if name not in columns]
    found: dict[str, str] = {}
    for column in columns:
        near = None if column in known else _nearest(column, missing)
        if near and near not in found.values():
            found[column] = near
    return found


def _nearest(column: str, missing: Sequence[str]) -> str | None:
    name = "_".join(re.findall(r"[^\W_]+", column.lower()))
    words = set(name.split("_"))
    meant = None
    if words & TARGET_WORDS and words <= TARGET_WORDS | SOURCE_WORDS | FILE_WORDS:
        meant = "target_image"
    elif words & SOURCE_WORDS and words <= SOURCE_WORDS | FILE_WORDS:
        meant = "source_image"
    elif words & TASK_WORDS and words <= TASK_WORDS | {"type", "kind", "name"}:
        meant = "task"
    elif len(words) == 1 and words <= PROMPT_WORDS:
        meant = "prompt"
    if meant is not None:
        return meant if meant in missing else None
    near = get_close_matches(name, missing, n=1, cutoff=0.8) or get_close_matches(
        name.replace("_", ""), [other.replace("_", "") for other in missing], n=1, cutoff=0.8
    )
    return next((other for other in missing if near and other.replace("_", "") == near[0].replace("_", "")), None)
