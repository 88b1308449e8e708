"""Reads prompts with their pictures from a table, in the columns of DanceOPD's own trainer, or from a folder."""

from __future__ import annotations

import ast
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..errors import InputError, encodable, shown
from ..lookup import lookup
from .csv_text import look_alikes
from .folder_rows import folder_rows, table_of
from .images import Picture
from .indexed_csv import Cells, IndexedCsv, IndexedJsonl, IndexedRows, Mapped
from .roots import Roots, file_of

if TYPE_CHECKING:
    from ..algorithm.fields import Sample


COLUMNS = ("prompt", "task", "source_image", "target_image", "caption_dict")
DATASETS = {
    "file_name": "target_image", "image_file_name": "target_image", "target_file_name": "target_image",
    "edited_image_file_name": "target_image", "output_image_file_name": "target_image",
    "source_file_name": "source_image", "source_image_file_name": "source_image",
    "input_image_file_name": "source_image", "original_image_file_name": "source_image",
    "text": "prompt", "caption": "prompt", "instruction": "prompt", "edit_prompt": "prompt",
}  # fmt: skip
"""Columns of an "imagefolder" of Hugging Face's datasets, known by one that ends in file_name."""


@dataclass(frozen=True, eq=False)
class Item:
    """A prompt with, for an edit, its source picture, and optionally its target picture.

    conditioning: of a prompt that is encoded already; it holds the source picture too, and `prompt` is a caption. null:
    what guided teachers compare it with, if it brings that. size: width and height to which its pictures are brought;
    None: the run's.
    """

    prompt: str
    source: Picture | None = None
    target: Picture | None = None
    task: str = ""
    conditioning: Sample | None = None
    null: Sample | None = None
    size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not encodable(self.prompt):
            raise InputError(f"the prompt '{self.prompt}' holds half of a character (a lone surrogate): type it again")


PICTURES = {"source": 1, "target": 2}
"""The bit of a row's mark that says that it has this picture."""
IN_MEMORY = 10_000
"""Rows up to which a table is a tuple."""


class CsvRow(NamedTuple):
    number: int
    """Line number in the file; the header is line 1."""
    item: Item


CsvRows = tuple[CsvRow, ...] | IndexedRows[CsvRow]


def read_csv(path: str | Path, task: str | None = None, roots: Roots = None) -> Sequence[Item]:
    """The rows of a CSV file that have a prompt, optionally those of one task only; InputError if there are none.

    Columns as in DanceOPD's trainer: prompt, or the first text of the mapping (JSON or Python) in
    column caption_dict; task ("default" if blank); source_image and target_image, relative to the CSV's
    folder. Unlike there, text that is not UTF-8, rows longer than the header, quotes that are not closed and columns
    that look like one of these are refused. roots: where the file and its pictures have to lie; None: anywhere.
    """
    return items_of(numbered_rows(path, task, roots))


def numbered_rows(path: str | Path, task: str | None = None, roots: Roots = None) -> CsvRows:
    """`read_csv` with the line number of each item. The rows of a large file are read when they are asked for.

    A name that ends in .jsonl is of JSONL with the same columns; a folder is a table of that name in it
    (`folder_rows.METADATA`), or its pictures with their captions (`folder_rows`), numbered by name.
    """
    path = Path(path) if roots is None else file_of(path, Path(), roots)
    in_folder = path.is_dir()
    path = (table_of(path) if in_folder else None) or path
    wanted = None if task is None else " ".join(task.split())
    real = Path(os.path.realpath(path))  # not resolve(), which raises RuntimeError for a circle of links
    folder = real if path.is_dir() else real.parent
    tasks: dict[str, None] = {}

    def build(number: int, cells: Cells) -> CsvRow:
        cells = _known(cells)
        try:
            source, target = (
                file_of(text, folder, roots) if (text := _picture(cells, name)) else None for name in PICTURES
            )
            return CsvRow(number, Item(_prompt(cells), source, target, _task(cells)))
        except InputError as error:
            raise InputError(f"{path}, row {number}: {error}") from None

    def mark(number: int, cells: Cells) -> int | None:
        cells = _known(cells)
        if not cells.get("prompt", "").strip() and not _prompt(cells):
            return None
        if wanted is not None:
            tasks[own := _task(cells)] = None
            if own != wanted:
                return None
        found = sum(bit for name, bit in PICTURES.items() if _picture(cells, name))
        if found and roots is not None:
            build(number, cells)  # what lies outside is told now, and not when its turn comes
        return found

    rows: CsvRows
    if path.is_dir():
        found = enumerate(folder_rows(path), 1)
        rows = tuple(build(number, cells) for number, cells in found if mark(number, cells) is not None)
    else:
        table = IndexedJsonl if path.suffix.lower() == ".jsonl" else IndexedCsv
        rows = table(path, lambda columns: _check_columns(path, tuple(_known(dict.fromkeys(columns, "")))), mark, build)
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


def _known(cells: Cells) -> Cells:
    """The cells with the columns of datasets under our names, where the table is one of them."""
    if not any(name.endswith("file_name") for name in cells):
        return cells
    return {DATASETS.get(name, name) if DATASETS.get(name) not in cells else name: text for name, text in cells.items()}


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    """InputError without a column of prompts, and for one that looks like a known column and would be passed over."""
    alike = look_alikes(columns, COLUMNS)
    named = "; ".join(f"{shown(column, 60)!r} looks like {known}" for column, known in alike.items())
    if not {"prompt", "caption_dict"} & set(columns):
        names = shown(", ".join(columns), 300) or "none"
        other = len(columns) == 1 and set(columns[0]) & set(";\t|")
        hint = f" ({named}: rename it)" if named else " (columns are separated by commas)" if other else ""
        raise InputError(f"{path} has no column prompt: it has {names}{hint}")
    if "caption_dict" in columns:  # it stands for the prompt
        alike = {column: known for column, known in alike.items() if known != "prompt"}
    alike = {column: known for column, known in alike.items() if known != "caption_dict"}
    if alike:
        named = "; ".join(f"{shown(column, 60)!r} looks like {known}" for column, known in alike.items())
        raise InputError(
            f"{path} has a column that is not read, {named}: rename it, or, if it is something else, leave it out"
        )


def _picture(cells: Cells, name: str) -> str:
    return cells.get(f"{name}_image", "").strip()


def _prompt(cells: Cells) -> str:
    return _clean(cells.get("prompt")) or _from_mapping(cells.get("caption_dict", ""))


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
    try:
        return next(filter(None, map(_clean, texts)), "")
    except (ValueError, RecursionError):  # as text: a whole number of thousands of digits, or deep lists
        return ""
