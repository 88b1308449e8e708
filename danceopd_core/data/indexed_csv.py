"""The rows of a CSV file, each read from the file when it is asked for: in memory there are 25 bytes a row."""

from __future__ import annotations

import io
import os
from array import array
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar, overload

from ..errors import InputError
from ..outside import read_lines
from .csv_text import CsvText, named, strict_reader

T = TypeVar("T")
S = TypeVar("S")
Cells = Mapping[str, str]
"""A row by the names of its columns; "" for one that a short row does not reach."""


class IndexedCsv(Sequence[T], Generic[T]):
    """The rows that `mark` gives a byte, which is kept in memory; it gives None for those to be left out.

    numbers: their line numbers; the header is line 1. marks: their bytes. header: is called with the columns. mark,
    build: the byte and the row, from a line number and its cells. InputError, also later, for a file that cannot be
    read or has changed.
    """

    def __init__(
        self,
        path: Path,
        header: Callable[[Sequence[str]], None],
        mark: Callable[[int, Cells], int | None],
        build: Callable[[int, Cells], T],
    ) -> None:
        self._path, self._build, self._lock = path, build, Lock()
        self._starts, self._ends, self.numbers, self.marks = array("q"), array("q"), array("L"), bytearray()
        lines = _Counted(read_lines(path, "the CSV file"))
        table = CsvText(path, lines)
        self._columns = table.columns
        header(self._columns)
        try:
            self._file = path.open("rb")  # stays open: what is moved to its place later is another file
            self._state = self._stamp()
            lines.place += 3 if self._file.read(3) == BOM_UTF8 else 0
        except OSError as error:
            raise InputError(f"the CSV file {path} cannot be read: {error.strerror or error}") from error
        start = lines.place
        for row in table.rows():
            if row.longer:
                raise InputError(
                    f'{path}, row {row.number}, is longer than the header: put prompts that hold commas in "quotes"'
                )
            byte = mark(row.number, row.cells)
            if byte is not None:
                self._starts.append(start)
                self._ends.append(lines.place)
                self.numbers.append(row.number)
                self.marks.append(byte)
            start = lines.place

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
        lines = io.StringIO(data.decode("utf-8"), newline="")
        cells = next(filter(None, strict_reader(lines)))  # empty lines before a row are read with it
        return self._build(self.numbers[row], named(self._columns, cells))

    def _stamp(self) -> tuple[int, int]:
        stat = os.fstat(self._file.fileno())
        return stat.st_size, stat.st_mtime_ns


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
