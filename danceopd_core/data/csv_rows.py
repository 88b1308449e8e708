"""Reads prompts with their pictures from a CSV file, in the columns of DanceOPD's own trainer."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..errors import InputError
from ..lookup import lookup
from .images import Picture
from .indexed_csv import Cells, IndexedCsv, Mapped

if TYPE_CHECKING:
    from ..algorithm.fields import Sample


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


PICTURES = {"source": 1, "target": 2}
"""The bit of a row's mark that says that it has this picture."""
IN_MEMORY = 10_000
"""Rows up to which a table is a tuple."""


class CsvRow(NamedTuple):
    number: int
    """Line number in the file; the header is line 1."""
    item: Item


CsvRows = tuple[CsvRow, ...] | IndexedCsv[CsvRow]


def read_csv(path: str | Path, task: str | None = None) -> Sequence[Item]:
    """The rows of a CSV file that have a prompt, optionally those of one task only; InputError if there are none.

    Columns as in DanceOPD's trainer: prompt, or the first text of the mapping (JSON or Python) in
    column caption_dict; task ("default" if blank); source_image and target_image, relative to the CSV's
    folder. Unlike there, text that is not UTF-8 and rows longer than the header are refused.
    """
    return items_of(numbered_rows(path, task))


def numbered_rows(path: str | Path, task: str | None = None) -> CsvRows:
    """`read_csv` with the line number of each item. The rows of a large file are read when they are asked for."""
    path, wanted = Path(path), None if task is None else " ".join(task.split())
    tasks: dict[str, None] = {}

    def header(columns: Sequence[str]) -> None:
        if not {"prompt", "caption_dict"} & set(columns):
            raise InputError(f"{path} has no column prompt: it has {', '.join(columns) or 'none'}")

    def mark(cells: Cells) -> int | None:
        if not (cells.get("prompt") or "").strip() and not _prompt(cells):
            return None
        if wanted is not None:
            tasks[own := _task(cells)] = None
            if own != wanted:
                return None
        return sum(bit for column, bit in columns if (cells.get(column) or "").strip())

    columns = [(f"{name}_image", bit) for name, bit in PICTURES.items()]
    folder = path.resolve().parent
    rows = IndexedCsv(path, header, mark, lambda number, cells: CsvRow(number, _item(cells, folder)))
    if not rows and not tasks:
        raise InputError(f"{path} holds no prompts: fill its column prompt")
    if wanted is not None:
        lookup(tasks, wanted, f"task in {path}")
    return tuple(rows) if len(rows) <= IN_MEMORY else rows


def items_of(rows: CsvRows) -> Sequence[Item]:
    """The items of rows, in their order."""
    return tuple(row.item for row in rows) if isinstance(rows, tuple) else Mapped(rows, lambda row: row.item)


def row_numbers(rows: CsvRows, column: Literal["source", "target"], filled: bool) -> list[int]:
    """The numbers of the rows that have a picture in this column, or of those that have none."""
    if isinstance(rows, tuple):
        return [row.number for row in rows if (getattr(row.item, column) is not None) == filled]
    bit = PICTURES[column]
    return [number for number, byte in zip(rows.numbers, rows.marks, strict=True) if bool(byte & bit) == filled]


def _item(cells: Cells, folder: Path) -> Item:
    def picture(column: str) -> Path | None:
        text = (cells.get(column) or "").strip()
        return folder / os.path.expanduser(text) if text else None

    return Item(_prompt(cells), picture("source_image"), picture("target_image"), _task(cells))


def _prompt(cells: Cells) -> str:
    return _clean(cells.get("prompt")) or _from_mapping(cells.get("caption_dict") or "")


def _task(cells: Cells) -> str:
    return _clean(cells.get("task")) or "default"


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
