"""Reads rows of metadata from CSV, JSON or JSONL files, or from a Hugging Face dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..models.hub import is_hub_id, split_id
from ..outside import TABLE_LIMIT, expanded, parse_json, read_json, read_lines
from .csv_text import CsvText


class MetadataRow(NamedTuple):
    """A row of metadata.

    number: the line of a CSV (its header is line 1) or JSONL file, else the position in the list, from 1. fault: why
    the row cannot be read; empty if it can.
    """

    number: int
    values: Mapping[str, Any]
    fault: str = ""


def metadata_rows(source: str, split: str = "train") -> Iterator[MetadataRow]:
    """The rows of a file, or of one split of a Hugging Face dataset owner/name, which is streamed.

    InputError if there is no such file or dataset, or if it is not a list of rows.
    """
    path = expanded(source)
    read = READERS.get(path.suffix.lower())
    if read is None and is_hub_id(source):
        yield from _dataset(source, split)
        return
    if read is None:
        raise InputError(
            f"{source} is neither a {', '.join(READERS)} file nor the owner/name of a Hugging Face dataset"
        )
    try:
        yield from read(path)
    except OSError as error:
        raise InputError(f"{path} is not a readable {path.suffix} file in UTF-8: {error}") from error


def _csv(path: Path) -> Iterator[MetadataRow]:
    for row in CsvText(path).rows():
        fault = "it is longer than the header: put texts that hold commas in quotes" if row.longer else ""
        yield MetadataRow(row.number, row.cells, fault)


def _jsonl(path: Path) -> Iterator[MetadataRow]:
    for number, line in enumerate(read_lines(path, "the table"), 1):
        if not line.strip():
            continue
        try:
            yield _row(number, parse_json(line, "it"))
        except InputError as error:
            yield MetadataRow(number, {}, str(error))


def _json(path: Path) -> Iterator[MetadataRow]:
    content = read_json(path, "the table", TABLE_LIMIT)
    lists = [v for v in content.values() if isinstance(v, list)] if isinstance(content, dict) else [content]
    if len(lists) != 1 or not isinstance(lists[0], list):
        raise InputError(f"{path} is neither a list of rows nor a mapping with one list: give one list")
    for number, row in enumerate(lists[0], 1):
        yield _row(number, row)


def _row(number: int, row: object) -> MetadataRow:
    if not isinstance(row, dict):
        return MetadataRow(number, {}, "it is not a mapping")
    return MetadataRow(number, {str(name).strip(): value for name, value in row.items()})


READERS: dict[str, Callable[[Path], Iterator[MetadataRow]]] = {".csv": _csv, ".json": _json, ".jsonl": _jsonl}


def _dataset(name: str, split: str) -> Iterator[MetadataRow]:
    if find_spec("datasets") is None:
        raise InputError(f"{name} is not a file; to read it as a Hugging Face dataset, pip install datasets")
    import datasets

    repository, revision = split_id(name)
    try:
        rows = datasets.load_dataset(
            repository, split=split, streaming=True, trust_remote_code=False, revision=revision
        )
        for column, kind in (rows.features or {}).items():
            if isinstance(kind, datasets.Image):  # the original file instead of decoded pixels
                rows = rows.cast_column(column, datasets.Image(decode=False))
        for number, row in enumerate(rows, 1):
            yield MetadataRow(number, row)
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"the dataset {name}, split {split}, cannot be read: {error}") from error
