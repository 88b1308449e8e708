"""The pictures of a run's validation prompts over its updates, beside their sources and their teachers' pictures.

RUN/strip.json                  the prompts, each with its route
RUN/pictures/000025-00.png      the student's picture of the first prompt after that update; 000000: before training
RUN/pictures/teacher-00.png     the teacher's, of the same noise
RUN/pictures/source-00.png      the picture that the prompt edits
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import InputError
from ...files import atomic, is_link, write_text
from ...outside import read_json

PICTURES = "pictures"
MOST = 24
"""Columns that are kept: of more, the first, the last, the best and some between them that are evenly apart."""
MOST_ROWS = 64
"""Rows that a table has at most."""
MOST_CHARACTERS = 2000
"""Of a prompt in a table."""
_OF_UPDATE = re.compile(r"(\d{6,10})-(\d{2,4})\.png")
_AFTER_UPDATE = re.compile(r"(\d{6,10})-.+\.png")
"""Earlier versions named the rest otherwise."""


@dataclass(frozen=True)
class StripRow:
    """A prompt of the validations. route: whose teacher's picture is beside it; None: nobody's."""

    prompt: str
    route: str | None = None


@dataclass(frozen=True)
class StripTable:
    """What a strip holds, by the files' names. columns: by update, ascending, a picture for each row."""

    rows: tuple[StripRow, ...]
    sources: tuple[str | None, ...]
    teachers: tuple[str | None, ...]
    columns: Mapping[int, tuple[str | None, ...]]

    def to_dict(self, url: Callable[[str], str]) -> dict[str, Any]:
        """For JSON. url: of a file of that name."""

        def given(file: str | None) -> str | None:
            return file and url(file)

        rows = [
            {"prompt": row.prompt, "route": row.route, "source": given(source), "teacher": given(teacher)}
            for row, source, teacher in zip(self.rows, self.sources, self.teachers, strict=True)
        ]
        columns = [{"update": update, "pictures": [*map(given, files)]} for update, files in self.columns.items()]
        return {"rows": rows, "columns": columns}


def check_own(folder: Path) -> None:
    """InputError for a folder of a run that is a link: what lies elsewhere is neither written nor removed."""
    if is_link(folder):
        raise InputError(f"{folder} is a link to another folder: put that folder in its place")


class Strip:
    """The strip in a run's folder. A folder of pictures that is a link to elsewhere is neither read nor written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / PICTURES
        self._file = folder / "strip.json"

    def begin(self, rows: Sequence[StripRow], watch: str, update: int) -> bool:
        """Whether the strip goes on with that of the folder; else it begins anew at this update, with these rows.

        watch: a digest of what is validated.
        """
        check_own(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        found = self._read()
        if found and (found["watch"], [*_rows(found)]) == (watch, [*rows]):
            return True
        for file in self._files():
            if file.name.startswith(("teacher-", "source-")):
                file.unlink()
        entries = [{"prompt": row.prompt, "route": row.route} for row in rows]
        text = json.dumps({"watch": watch, "since": update, "rows": entries}, indent=1)
        write_text(self._file, text + "\n")
        return False

    def add(self, update: int, pictures: Sequence[np.ndarray]) -> list[str]:
        """Writes the student's pictures (H, W, 3) uint8 after an update; the names of the files."""
        names = [f"{update:06d}-{row:02d}.png" for row in range(len(pictures))]
        for name, picture in zip(names, pictures, strict=True):
            self._write(name, picture)
        return names

    def add_beside(self, kind: str, pictures: Mapping[int, np.ndarray]) -> None:
        """Writes what stands beside the student's pictures, by row. kind: teacher or source."""
        for row, picture in pictures.items():
            self._write(f"{kind}-{row:02d}.png", picture)

    def lacks_teachers(self) -> bool:
        """Whether some prompt has a route but not yet its teacher's picture."""
        table = self.table()
        return any(row.route and not file for row, file in zip(table.rows, table.teachers, strict=True))

    def thin(self, best: int | None) -> None:
        """Removes columns where there are too many, but the first, the last and that of the best update."""
        found = self._by_update()
        updates = sorted(found)
        while len(updates) > MOST:
            inner = [place for place in range(1, len(updates) - 1) if updates[place] != best]
            place = min(inner, key=lambda place: updates[place + 1] - updates[place - 1])
            for name in found[updates.pop(place)].values():
                (self.folder / name).unlink(missing_ok=True)

    def cut(self, update: int) -> None:
        """Removes the pictures after an update."""
        for file in self._files():
            if (match := _AFTER_UPDATE.fullmatch(file.name)) and int(match[1]) > update:
                file.unlink()

    def last(self) -> list[Path]:
        """The student's pictures of the last validation, in order."""
        return self.of(max(self._by_update(), default=0))

    def of(self, update: int) -> list[Path]:
        """The student's pictures after an update, in order."""
        return [self.folder / name for _, name in sorted(self._by_update().get(update, {}).items())]

    def table(self, prompts: Sequence[str] = ()) -> StripTable:
        """What there is, of the first MOST_ROWS rows and the last MOST columns. prompts: of a run of a release that
        kept no strip."""
        found = self._read()
        all_rows = _rows(found) if found else [*map(StripRow, prompts)]
        rows = tuple(StripRow(row.prompt[:MOST_CHARACTERS], row.route) for row in all_rows[:MOST_ROWS])
        since = found["since"] if found else 0
        by_update = self._by_update()
        updates = sorted(update for update in by_update if update >= since and rows)[-MOST:]
        columns = {update: tuple(by_update[update].get(row) for row in range(len(rows))) for update in updates}
        return StripTable(rows, self._beside("source", len(rows)), self._beside("teacher", len(rows)), columns)

    def _beside(self, kind: str, rows: int) -> tuple[str | None, ...]:
        names = [f"{kind}-{row:02d}.png" for row in range(rows)]
        there = {file.name for file in self._files() if file.is_file()}
        return tuple(name if name in there else None for name in names)

    def _by_update(self) -> dict[int, dict[int, str]]:
        found: dict[int, dict[int, str]] = {}
        for file in self._files():
            if match := _OF_UPDATE.fullmatch(file.name):
                found.setdefault(int(match[1]), {})[int(match[2])] = file.name
        return found

    def _files(self) -> list[Path]:
        """The pictures that there are."""
        return [] if is_link(self.folder) else [*self.folder.glob("*.png")]

    def _write(self, name: str, picture: np.ndarray) -> None:
        check_own(self.folder)
        with atomic(self.folder / name) as temporary:
            Image.fromarray(picture).save(temporary, "PNG")

    def _read(self) -> dict[str, Any] | None:
        """strip.json, if it is one."""
        try:
            found = read_json(self._file, "the strip") if self._file.exists() else None
        except InputError:
            return None
        if not isinstance(found, dict) or not isinstance(found.get("rows"), list):
            return None
        sound = type(found.get("since")) is int and isinstance(found.get("watch"), str)
        return found if sound and all(map(_is_row, found["rows"])) else None


def _is_row(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("prompt"), str)
        and (value.get("route") is None or isinstance(value["route"], str))
    )


def _rows(found: Mapping[str, Any]) -> list[StripRow]:
    return [StripRow(row["prompt"], row.get("route")) for row in found["rows"]]
