"""The rows of a CSV or JSONL file, each read from it when it is asked for: in memory there are 25 bytes a row."""

from __future__ import annotations

import io
import json
import os
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Generic, TypeVar, overload

from ..errors import InputError
from ..outside import parse_json, read_lines
from .csv_text import CsvText, named, strict_reader

T = TypeVar("T")
S = TypeVar("S")
Cells = Mapping[str, str]
"""A row by the names of its columns; "" for one that a short row does not reach."""


class IndexedRows(Sequence[T], Generic[T]):
    """The rows that `mark` gives a byte, which is kept in memory; it gives None for those to be left out.

    numbers: their line numbers in the file. marks: their bytes. header: is called with the columns. mark, build: the
    byte and the row, from a line number and its cells. InputError, also later, for a file that cannot be read or has
    changed.
    """

    kind = "file"

    def __init__(
        self,
        path: Path,
        header: Callable[[Sequence[str]], None],
        mark: Callable[[int, Cells], int | None],
        build: Callable[[int, Cells], T],
    ) -> None:
        self._path, self._build, self._lock = path, build, Lock()
        self._starts, self._ends, self.numbers, self.marks = array("q"), array("q"), array("L"), bytearray()
        lines = _Counted(read_lines(path, f"the {self.kind}"))
        rows = self._rows(lines, header)
        try:
            self._file = path.open("rb")  # stays open: what is moved to its place later is another file
            self._state = self._stamp()
            lines.place += 3 if self._file.read(3) == BOM_UTF8 else 0
        except OSError as error:
            raise InputError(f"the {self.kind} {path} cannot be read: {error.strerror or error}") from error
        start = lines.place
        for number, cells in rows:
            byte = mark(number, cells)
            if byte is not None:
                self._starts.append(start)
                self._ends.append(lines.place)
                self.numbers.append(number)
                self.marks.append(byte)
            start = lines.place

    def _rows(self, lines: _Counted, header: Callable[[Sequence[str]], None]) -> Iterator[tuple[int, Cells]]:
        """The rows with their line numbers, as the lines are taken. What stands before the first is taken at once."""
        raise NotImplementedError

    def _cells(self, text: str) -> Cells:
        """The cells of one row's lines."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        if isinstance(index, slice):
            return tuple(self[row] for row in range(*index.indices(len(self))))
        row = range(len(self))[index]
        with self._lock:
            if self._stamp() != self._state:
                raise InputError(f"{self._path} has changed since the run began: restore it, and resume")
            self._file.seek(self._starts[row])
            data = self._file.read(self._ends[row] - self._starts[row])
        return self._build(self.numbers[row], self._cells(data.decode("utf-8")))

    def _stamp(self) -> tuple[int, int]:
        stat = os.fstat(self._file.fileno())
        return stat.st_size, stat.st_mtime_ns


class IndexedCsv(IndexedRows[T]):
    """Of a CSV file, whose header is line 1."""

    kind = "CSV file"

    def _rows(self, lines: _Counted, header: Callable[[Sequence[str]], None]) -> Iterator[tuple[int, Cells]]:
        table = CsvText(self._path, lines)
        self._columns = table.columns
        header(self._columns)
        return self._checked(table)

    def _checked(self, table: CsvText) -> Iterator[tuple[int, Cells]]:
        for row in table.rows():
            if row.longer:
                raise InputError(
                    f"{self._path}, row {row.number}, is longer than the header: put prompts that hold commas in "
                    '"quotes"'
                )
            yield row.number, row.cells

    def _cells(self, text: str) -> Cells:
        cells = next(filter(None, strict_reader(io.StringIO(text, newline=""))))  # empty lines before it are in it
        return named(self._columns, cells)


class IndexedJsonl(IndexedRows[T]):
    """Of a JSONL file: a mapping a line, whose names are the columns; values that are no text are JSON."""

    kind = "JSONL file"

    def _rows(self, lines: _Counted, header: Callable[[Sequence[str]], None]) -> Iterator[tuple[int, Cells]]:
        seen: set[tuple[str, ...]] = set()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                cells = self._cells(line)
            except InputError as error:
                raise InputError(f"{self._path}, row {number}: {error}") from None
            if (columns := tuple(cells)) not in seen:
                seen.add(columns)
                header(columns)
            yield number, cells

    def _cells(self, text: str) -> Cells:
        found = parse_json(text, "the line")
        if not isinstance(found, dict):
            raise InputError('the line is no mapping: write {"prompt": ...}')
        return {name.strip(): _cell(value) for name, value in found.items()}


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


class _Counted:
    """Lines of a text file in UTF-8. place: the byte at which the next one begins."""

    def __init__(self, file: Iterable[str]) -> None:
        self._file, self.place = file, 0

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.place += len(line) if line.isascii() else len(line.encode())
            yield line


class Mapped(Sequence[S], Generic[T, S]):
    """A sequence whose entries are made when they are asked for."""

    def __init__(self, rows: Sequence[T], of: Callable[[T], S]) -> None:
        self._rows, self._of = rows, of

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> S: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[S, ...]: ...
    def __getitem__(self, index: int | slice) -> S | tuple[S, ...]:
        if isinstance(index, slice):
            return tuple(map(self._of, self._rows[index]))
        return self._of(self._rows[index])
