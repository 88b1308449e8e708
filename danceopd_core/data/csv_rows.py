"""Reads prompts with their pictures from a CSV file, in the columns of DanceOPD's own trainer."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InputError, encodable, shown
from ..lookup import lookup
from .csv_text import CsvText, look_alikes
from .images import Picture
from .roots import Roots, file_of

if TYPE_CHECKING:
    from ..algorithm.fields import Sample


COLUMNS = ("prompt", "task", "source_image", "target_image", "caption_dict")


@dataclass(frozen=True, eq=False)
class Item:
    """A prompt with, for an edit, its source picture, and optionally its target picture.

    conditioning: of a prompt that is encoded already; it holds the source picture too, and `prompt` is a caption. null:
    what guided teachers compare it with, if it brings that.
    """

    prompt: str
    source: Picture | None = None
    target: Picture | None = None
    task: str = ""
    conditioning: Sample | None = None
    null: Sample | None = None

    def __post_init__(self) -> None:
        if not encodable(self.prompt):
            raise InputError(f"the prompt '{self.prompt}' holds half of a character (a lone surrogate): type it again")


class CsvRow(NamedTuple):
    number: int
    """Line number in the file; the header is line 1."""
    item: Item


def read_csv(path: str | Path, task: str | None = None, roots: Roots = None) -> tuple[Item, ...]:
    """The rows of a CSV file that have a prompt, optionally those of one task only; InputError if there are none.

    Columns as in DanceOPD's trainer: prompt, or the first text of the mapping (JSON or Python) in
    column caption_dict; task ("default" if blank); source_image and target_image, relative to the CSV's
    folder. Unlike there, text that is not UTF-8, rows longer than the header, quotes that are not closed and columns
    that look like one of these are refused. roots: where the file and its pictures have to lie; None: anywhere.
    """
    return tuple(row.item for row in numbered_rows(path, task, roots))


def numbered_rows(path: str | Path, task: str | None = None, roots: Roots = None) -> tuple[CsvRow, ...]:
    """`read_csv` with the line number of each item."""
    rows = tuple(_rows(Path(path) if roots is None else file_of(path, Path(), roots), roots))
    if not rows:
        raise InputError(f"{path} holds no prompts: fill its column prompt")
    if task is None:
        return rows
    tasks: dict[str, list[CsvRow]] = {}
    for row in rows:
        tasks.setdefault(row.item.task, []).append(row)
    return tuple(lookup(tasks, " ".join(task.split()), f"task in {path}"))


def _rows(path: Path, roots: Roots) -> Iterator[CsvRow]:
    folder = Path(os.path.realpath(path)).parent  # not resolve(), which raises RuntimeError for a circle of links

    def picture(text: str | None, row: int) -> Path | None:
        text = (text or "").strip()
        try:
            return file_of(text, folder, roots) if text else None
        except InputError as error:
            raise InputError(f"{path}, row {row}: {error}") from None

    table = CsvText(path)
    _check_columns(path, table.columns)
    for row in table.rows():
        if row.longer:
            raise InputError(
                f'{path}, row {row.number}, is longer than the header: put prompts that hold commas in "quotes"'
            )
        prompt = _clean(row.cells.get("prompt")) or _from_mapping(row.cells.get("caption_dict") or "")
        if prompt:
            source, target = (picture(row.cells.get(name), row.number) for name in ("source_image", "target_image"))
            task = _clean(row.cells.get("task")) or "default"
            yield CsvRow(row.number, Item(prompt, source, target, task))


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    """InputError without a column of prompts, and for one that looks like a known column and would be passed over."""
    alike = look_alikes(columns, COLUMNS)
    named = "; ".join(f"{shown(column, 60)!r} looks like {known}" for column, known in alike.items())
    if not {"prompt", "caption_dict"} & set(columns):
        names = shown(", ".join(columns), 300) or "none"
        raise InputError(f"{path} has no column prompt: it has {names}{f' ({named}: rename it)' if named else ''}")
    if "caption_dict" in columns:  # it stands for the prompt
        alike = {column: known for column, known in alike.items() if known != "prompt"}
    alike = {column: known for column, known in alike.items() if known != "caption_dict"}
    if alike:
        named = "; ".join(f"{shown(column, 60)!r} looks like {known}" for column, known in alike.items())
        raise InputError(
            f"{path} has a column that is not read, {named}: rename it, or, if it is something else, leave it out"
        )


def _clean(value: object) -> str:
    return " ".join(str(value or "").split())


def _from_mapping(text: str) -> str:
    try:
        mapping = json.loads(text)
    except (ValueError, RecursionError):
        try:
            mapping = ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return ""
    if not isinstance(mapping, dict):
        return ""
    texts = [mapping.get("prompt"), mapping.get("caption"), *mapping.values()]
    return next(filter(None, map(_clean, texts)), "")
