"""The history of a run for the page: read in parts, and as far as it can be read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...outside import TABLE_LIMIT, depth_exceeds, read_text
from .live_status import plain

FIRST_UPDATE = re.compile(r'\{"update": ?(\d{1,12})[,}]')
"""How a line begins as runs write it: the lines before a page are passed over without parsing them."""
DEPTH = 4
MOST_ROUTES = 1000
"""In a page; lines of further ones count as such that cannot be read: each route is a column of all updates."""


@dataclass(frozen=True)
class HistoryPage:
    """updates after the one asked for, with losses by route and None for updates of other routes; the validations up
    to the last of them. next: the update to ask after for what follows; None at the end. skipped: lines that could not
    be read, as a killed run may leave."""

    updates: list[int]
    losses: dict[str, list[float | None]]
    validation: list[dict[str, Any]]
    next: int | None
    skipped: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON: plain values, without infinities."""
        return plain(self.__dict__)  # type: ignore[no-any-return]


def history_page(folder: Path, after: int = 0, limit: int | None = None) -> HistoryPage:
    """The part of a run folder's history after an update, `limit` updates at most; None: all.

    InputError for a file that is no regular file, no text, or too large.
    """
    entries: list[tuple[int, dict[str, Any]]] = []
    skipped, more = 0, False
    routes: dict[str, None] = {}
    for entry in _lines(folder / "history.jsonl", after, _update):
        if entry is None or len(routes.keys() | entry[1].keys()) > MOST_ROUTES:
            skipped += 1
        elif limit is not None and len(entries) == limit:
            more = True
            break
        else:
            entries.append(entry)
            routes |= dict.fromkeys(entry[1])
    last = entries[-1][0] if more else None
    validation = []
    begin = after if after else -1  # that of update 0 is of the start
    for found in _lines(folder / "validation.jsonl", begin, _validation):
        if found is None:
            skipped += 1
        elif last is None or found[0] <= last:
            validation.append({**found[1], "update": found[0]})
    losses = {route: [losses.get(route) for _, losses in entries] for route in routes}
    return HistoryPage([update for update, _ in entries], losses, validation, last, skipped)


def json_pieces(value: dict[str, Any], size: int = 500) -> bytes:
    """JSON, encoded list by list in pieces: encoding all at once would stop every other thread meanwhile."""

    def text(part: Any) -> str:
        if isinstance(part, dict):
            return "{" + ", ".join(f"{json.dumps(key)}: {text(inner)}" for key, inner in part.items()) + "}"
        if isinstance(part, list) and len(part) > size:
            parts = (json.dumps(part[first : first + size])[1:-1] for first in range(0, len(part), size))
            return f"[{', '.join(parts)}]"
        return json.dumps(part)

    return text(value).encode()


Entry = tuple[int, dict[str, Any]]


def _lines(file: Path, after: int, read: Callable[[Any], Entry | None]) -> Iterator[Entry | None]:
    """The entries of a file after an update; None for a line that is none."""
    if not file.exists():
        return
    try:
        lines = read_text(file, "the history", TABLE_LIMIT).split("\n")
    except MemoryError:
        raise InputError(f"the history {file} needs more memory than there is") from None
    for line in filter(None, lines):
        begin = FIRST_UPDATE.match(line)
        if begin and int(begin[1]) <= after:
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            yield None
            continue
        entry = None if depth_exceeds(found, DEPTH) or not isinstance(found, dict) else read(found)
        if entry is None or entry[0] > after:
            yield entry


def _update(found: dict[str, Any]) -> Entry | None:
    return _entry(found.get("update"), found.get("losses"))


def _validation(found: dict[str, Any]) -> Entry | None:
    return _entry(found.get("update"), found.get("errors"))


def _entry(update: Any, values: Any) -> Entry | None:
    if not isinstance(update, int) or isinstance(update, bool) or not isinstance(values, dict):
        return None
    sound = all(value is None or type(value) in (int, float) for value in values.values())
    return (update, values) if sound else None
