"""Files of a run with one JSON object a line, each with its update: appended to, read, and cut to a resumed state."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import write_text
from ...outside import DEPTH_LIMIT, MIB, depth_exceeds, opened
from .numbers import is_update

LIMIT = 256 * MIB
"""Bytes of a history that is read: more than those of a million updates."""
MOST_LINES = 2_000_000
LINE = MIB
"""Bytes of a line; a longer one counts as incomplete."""


class UpdateLines:
    """history.jsonl and files like it. A line that a killed process left incomplete counts as absent."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[dict[str, Any]]:
        """The entries, in order, without lines that are none. InputError for a file that is too large."""
        try:
            return list(self._entries())
        except MemoryError:
            raise InputError(f"the history {self.path} needs more memory than there is") from None

    def add(self, entry: Mapping[str, Any]) -> None:
        """Appends an entry; if that fails, the file is as it was. OSError if its folder is gone."""
        line = (json.dumps(entry) + "\n").encode()
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("ab") as file:
                file.write(line)
        except OSError:
            if self.path.exists():
                os.truncate(self.path, size)
            raise

    def replace(self, entry: Mapping[str, Any]) -> None:
        """Appends an entry in the place of those of its update and later ones."""
        update = entry["update"]
        if any(other["update"] >= update for other in self.read()):
            self.cut(update - 1)
        self.add(entry)

    def cut(self, update: int) -> tuple[int, bool]:
        """Drops the entries after an update, and all but the last of an update. Returns how many lines were incomplete,
        and whether all updates from the first are there."""
        if not self.path.exists():
            return 0, update == 0
        entries = self.read()
        lines = sum(map(bool, self._lines()))
        kept = {entry["update"]: entry for entry in entries if entry["update"] <= update}
        write_text(self.path, "".join(json.dumps(entry) + "\n" for entry in kept.values()))
        return lines - len(entries), list(kept) == list(range(1, update + 1))

    def to_disk(self) -> None:
        """Waits until the lines are on the disk."""
        with self.path.open("ab") as file:
            os.fsync(file.fileno())

    def _entries(self) -> Iterator[dict[str, Any]]:
        for line in self._lines():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if not isinstance(entry, dict) or not is_update(entry.get("update")):
                continue
            may_be_deep = line.count(b"{") + line.count(b"[") > DEPTH_LIMIT  # counting is faster than walking
            if not may_be_deep or not depth_exceeds(entry, DEPTH_LIMIT):
                yield entry

    def _lines(self) -> Iterator[bytes]:
        """One at a time, those that are not empty."""
        if not self.path.exists():
            return
        number = 0
        with opened(self.path, "the history") as file:
            if os.fstat(file.fileno()).st_size > LIMIT:
                raise InputError(
                    f"the history {self.path} has more than {LIMIT // MIB} MiB, the most that is read of such a file"
                )
            for line in file:
                number += 1
                if number > MOST_LINES:
                    raise InputError(f"the history {self.path} has more than {MOST_LINES} lines, the most that is read")
                if line != b"\n":
                    yield line.removesuffix(b"\n") if len(line) <= LINE else b"?"
