"""The rows of a CSV file, each read from the file when it is asked for: in memory there are 25 bytes a row."""

from __future__ import annotations

import csv
import io
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar, overload

from ..errors import InputError

T = TypeVar("T")
S = TypeVar("S")
Cells = Mapping[str, str | None]
"""A row by the names of its columns; None for one that a short row does not reach."""


class IndexedCsv(Sequence[T], Generic[T]):
    """The rows that `mark` gives a byte, which is kept in memory; it gives None for those to be left out.

    numbers: their line numbers; the header is line 1. marks: their bytes. header: is called with the columns. build: a
    row, from its line number and its cells. InputError, also later, for a file that cannot be read or has changed.
    """

    def __init__(
        self,
        path: Path,
        header: Callable[[Sequence[str]], None],
        mark: Callable[[Cells], int | None],
        build: Callable[[int, Cells], T],
    ) -> None:
        self._path, self._build, self._lock = path, build, Lock()
        self._starts, self._ends, self.numbers, self.marks = array("q"), array("q"), array("L"), bytearray()
        try:
            self._file = path.open("rb")  # stays open: what is moved to its place later is another file
            self._state = self._stamp()
            with path.open(newline="", encoding="utf-8-sig") as file:
                self._read(file, header, mark)
        except UnicodeDecodeError as error:
            raise InputError(f"{path} is not UTF-8 text ({error.reason}): save it as CSV in UTF-8") from error
        except csv.Error as error:
            raise InputError(f"{path} is not a readable CSV file: {error}") from error
        except (OSError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path} cannot be read: {error}") from error

    def _read(
        self, file: Iterable[str], header: Callable[[Sequence[str]], None], mark: Callable[[Cells], int | None]
    ) -> None:
        lines = _Counted(file, 3 if self._file.read(3) == b"\xef\xbb\xbf" else 0)
        reader = csv.reader(lines)
        self._columns = next(reader, [])
        header(self._columns)
        start = lines.place
        for cells in reader:
            if len(cells) > len(self._columns):
                raise InputError(
                    f"{self._path}, row {reader.line_num}, is longer than the header: put prompts that hold "
                    'commas in "quotes"'
                )
            byte = mark(self._named(cells)) if cells else None
            if byte is not None:
                self._starts.append(start)
                self._ends.append(lines.place)
                self.numbers.append(reader.line_num)
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
        cells = next(csv.reader(io.StringIO(data.decode("utf-8"), newline="")))
        return self._build(self.numbers[row], self._named(cells))

    def _named(self, cells: Sequence[str]) -> Cells:
        named = dict(zip(self._columns, cells, strict=False))
        return named if len(cells) == len(self._columns) else {**dict.fromkeys(self._columns), **named}

    def _stamp(self) -> tuple[int, int]:
        stat = os.fstat(self._file.fileno())
        return stat.st_size, stat.st_mtime_ns


class _Counted:
    """Lines of a text file in UTF-8. place: the byte at which the next one begins."""

    def __init__(self, file: Iterable[str], place: int) -> None:
        self._file, self.place = file, place

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
