"""Reads files that somebody else made: regular files only, up to a size, as UTF-8 text or JSON of a sane depth.

A FIFO would block, a device would fill the memory, and a deep document would exhaust the stack: each is an InputError.
"""

from __future__ import annotations

import io
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from .errors import InputError, shown

MIB = 2**20
TEXT_LIMIT = 16 * MIB
"""Of recipes, configurations, indices and other files of settings."""
TABLE_LIMIT = 256 * MIB
"""Of CSV and JSONL files: about a million prompts."""
PICTURE_LIMIT = 256 * MIB
DEPTH_LIMIT = 64
"""Of lists and mappings in each other."""


def expanded(path: str | Path) -> Path:
    """A path with ~ and ~user expanded; as it is where there is no such user."""
    try:
        return Path(os.path.expanduser(path))
    except ValueError:  # a null character in the user's name
        return Path(path)


def read_bytes(path: str | Path, what: str, limit: int = TEXT_LIMIT) -> bytes:
    """The content of a regular file. what: its kind, for the error, such as "the recipe". limit: in bytes."""
    data, _ = read_head(path, what, limit + 1)
    if len(data) > limit:
        raise InputError(f"{what} {path} has more than {limit // MIB} MiB, the most that is read of such a file")
    return data


def read_head(path: str | Path, what: str, size: int) -> tuple[bytes, int]:
    """The first `size` bytes of a regular file, or all if it has fewer; and how many it has."""
    with opened(path, what) as file:
        return file.read(size), os.fstat(file.fileno()).st_size


def read_lines(path: str | Path, what: str) -> Iterator[str]:
    """The lines of a file of UTF-8 text of any length, with their ends as they are, one at a time."""
    with opened(path, what) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        try:
            while line := text.readline(TEXT_LIMIT + 1):
                if len(line) > TEXT_LIMIT:
                    raise InputError(f"{what} {path} has a line of more than {TEXT_LIMIT // MIB} million characters")
                yield line
        except UnicodeDecodeError as error:
            raise InputError(f"{what} {path} is not UTF-8 text ({error.reason}): save it as UTF-8") from error


@contextmanager
def opened(path: str | Path, what: str) -> Iterator[BinaryIO]:
    """A regular file, open for reading; InputError if it cannot be opened or read."""
    try:
        # Not blocking: opening a FIFO would wait for a writer. It has no effect on a regular file.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise InputError(f"{what} {path} is not a regular file: give a file")
            yield file
    except InputError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character, or a surrogate
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{what} {path} cannot be read: {reason}") from error


def read_text(path: str | Path, what: str, limit: int = TEXT_LIMIT) -> str:
    """A file of UTF-8 text, without a byte order mark."""
    try:
        return read_bytes(path, what, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{what} {path} is not UTF-8 text (byte {error.start}): save it as UTF-8") from error


def read_json(path: str | Path, what: str, limit: int = TEXT_LIMIT) -> Any:
    """A file of JSON."""
    return parse_json(read_text(path, what, limit), f"{what} {path}")


def parse_json(text: str, what: str) -> Any:
    """JSON from outside. what: names it in the error."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also for whole numbers of thousands of digits
        raise InputError(f"{what} is not valid JSON: {shown(str(error), 120)}") from error
    if depth_exceeds(found, DEPTH_LIMIT):
        raise InputError(f"{what} has lists or mappings more than {DEPTH_LIMIT} deep in each other")
    return found


def depth_exceeds(value: Any, limit: int) -> bool:
    """Whether lists and mappings lie deeper in each other than `limit`."""
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return any(isinstance(outer, (dict, list)) for outer in level)
