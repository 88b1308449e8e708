"""The items of a stream, by their place in the order in which a run draws them.

The rows of a pass are taken in blocks, each shuffled by the seed and its place. So what lies at a place depends on
nothing else, and a resumed run goes on at its own; when the rows end, the next pass begins.
"""

from __future__ import annotations

import os
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, overload

import torch

from ..algorithm.fields import ENDLESS
from ..errors import InputError, shown
from ..outside import PICTURE_LIMIT, expanded, read_bytes
from ..recipe.schema import Stream
from .csv_rows import Item
from .images import check_picture
from .stream_source import OpenStream, open_stream

LOOKED_AT = 8
"""Rows that a dry run reads, and that validations ask for."""
TOGETHER = 64
"""Rows that one process is asked for at a time."""


class StreamItems(Sequence[Item]):
    """The items of a stream, without an end. They are read forwards; for one far back, from the beginning again.

    Rows without a prompt are left out. InputError, also later, for a row that cannot be used, with its number from 1.
    """

    def __init__(self, stream: Stream, seed: int) -> None:
        self._stream, self._seed = stream, seed
        self._kept = 1 + -(-TOGETHER * int(os.environ.get("WORLD_SIZE", "1")) // stream.buffer)
        with _naming(stream.source):
            self._open: OpenStream = open_stream(stream)
            self.first = tuple(self._item(*row) for row in islice(self._rows(), LOOKED_AT))
            if not self.first:
                raise InputError(f"it holds no prompts in {stream.prompt!r}")
        self._begin()

    def __len__(self) -> int:
        return ENDLESS

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(index, slice):
            return tuple(self[place] for place in range(*index.indices(len(self))))
        if self._blocks and index < self._blocks[0][0]:
            self._begin()
        with _naming(self._stream.source):
            while index >= self._end:
                self._advance()
            first, items = next(block for block in reversed(self._blocks) if block[0] <= index)
            found = items[index - first]
            if not isinstance(found, Item):
                found = items[index - first] = self._item(*found)
        return found

    def text(self) -> str:
        """One line about what the stream holds, as far as its first rows tell."""
        stream, first = self._stream, self.first[0]
        read = {"prompt": stream.prompt, "source_image": stream.source_image, "target_image": stream.target_image}
        named = ", ".join(f"{setting} from {column!r}" for setting, column in read.items() if column)
        columns = shown(", ".join(self._open.columns), 200)
        return f"stream {stream.source}: columns {columns}; {named}; the first prompt is {shown(first.prompt, 60)!r}"

    def _begin(self) -> None:
        self._blocks: deque[tuple[int, list[Any]]] = deque(maxlen=self._kept)
        self._end = self._pass = self._block = 0
        self._coming = self._rows()

    def _advance(self) -> None:
        """Reads the next block."""
        rows = list(islice(self._coming, self._stream.buffer))
        if not rows:
            self._pass, self._block, self._coming = self._pass + 1, 0, self._rows()
            rows = list(islice(self._coming, self._stream.buffer))
        place = self._seed, "stream", self._pass, self._block
        generator = torch.Generator().manual_seed(zlib.crc32(repr(place).encode()))
        order = torch.randperm(len(rows), generator=generator).tolist()
        self._blocks.append((self._end, [rows[row] for row in order]))
        self._end, self._block = self._end + len(rows), self._block + 1

    def _rows(self) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
        """(number, prompt, row) of each with a prompt, in the order of the data set."""
        for number, row in enumerate(self._open, 1):
            cell = _cell(row, self._stream.prompt)
            if isinstance(cell, bytes):
                cell = cell.decode("utf-8", "replace")
            if cell is not None and not isinstance(cell, str):
                raise InputError(f"row {number}: {self._stream.prompt} is no text but {type(cell).__name__}")
            if prompt := " ".join((cell or "").split()):
                yield number, prompt, row

    def _item(self, number: int, prompt: str, row: Mapping[str, Any]) -> Item:
        source, target = (
            self._picture(number, row, column) for column in (self._stream.source_image, self._stream.target_image)
        )
        return Item(prompt, source, target)

    def _picture(self, number: int, row: Mapping[str, Any], column: str | None) -> bytes | None:
        """The checked bytes of a picture's file."""
        if column is None:
            return None
        cell = _cell(row, column)
        if isinstance(cell, Mapping):
            cell = cell.get("path") if cell.get("bytes") is None else cell["bytes"]
        try:
            if isinstance(cell, str) and cell.strip():
                cell = self._file(cell.strip())
            if not isinstance(cell, bytes) or not cell:
                raise InputError("has no picture" if not cell else f"is no picture but {type(cell).__name__}")
            check_picture(cell)
        except InputError as error:
            raise InputError(f"row {number}: {column} {error}") from None
        return cell

    def _file(self, name: str) -> bytes:
        if self._open.folder is None or "://" in name:
            raise InputError(f"is a path, {shown(name, 60)}, which only local data sets may have")
        try:
            return read_bytes(self._open.folder / expanded(name), "the picture", PICTURE_LIMIT)
        except InputError as error:
            raise InputError(f"cannot be used: {error}") from None


@contextmanager
def _naming(source: str) -> Iterator[None]:
    """A context whose InputErrors say which stream."""
    try:
        yield
    except InputError as error:
        raise InputError(f"stream {source}: {error}") from None


def _cell(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or of what lies deeper under names with dots between them."""
    if column in row:
        return row[column]
    found: Any = row
    for name in column.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found
