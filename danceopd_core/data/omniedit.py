"""OmniEdit's metadata, or any like it, as a CSV with a route for every edit and the pictures beside it."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..files import atomic
from .images import PictureFile, picture_file
from .metadata_rows import MetadataRow, metadata_rows

COLUMNS = {
    "prompt": ("edited_prompt_list", "prompt", "instruction"),
    "task": ("task", "edit_type"),
    "source": ("src_img", "source_image"),
    "target": ("edited_img", "edited_image", "target_image"),
    "score": ("o_score",),
    "name": ("omni_edit_id", "id", "uid"),
}
"""What a row tells, and the columns that tell it, OmniEdit's first."""
NEEDED = ("prompt", "task", "source")
GLOBAL = frozenset({"style", "background", "environment", "env", "weather", "tone", "lighting", "scene", "global"})
"""Words of an edit's type that change the picture as a whole; all other edits are local."""


class Converted(NamedTuple):
    tasks: Mapping[str, int]
    """Rows written, by task."""
    left_out: tuple[str, ...]
    """Faults of the rows left out, one a row."""


class _Edit(NamedTuple):
    prompt: str
    task: str
    source: PictureFile | None
    target: PictureFile | None


def convert_omniedit(
    metadata: str,
    out: str | Path,
    *,
    split: str = "train",
    limit: int | None = None,
    min_score: float | None = None,
    skip_bad: bool = False,
) -> Converted:
    """Writes OUT/edits.csv (prompt, task, source_image, target_image), OUT/source/ and OUT/target/.

    Tasks are local_edit and global_edit, by the words of the edit's type; the prompt is the first of
    edited_prompt_list. Only rows whose o_score is at least `min_score` are taken, at most `limit`.
    The folder appears whole or not at all. InputError if it holds anything, or, with every fault of every
    row, if rows cannot be used, unless `skip_bad` leaves them out.
    """
    out = Path(out).expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty: choose another folder to write to")
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} rows leaves none: give at least 1")
    try:
        with atomic(out) as part:
            for kind in ("source", "target"):
                (part / kind).mkdir(parents=True)
            converted = _write(metadata, part, split, limit, min_score)
            if converted.left_out and not skip_bad:
                told = "\n".join(converted.left_out)
                raise InputError(
                    f"{metadata} has {len(converted.left_out)} rows that cannot be used: mend them, or leave them out "
                    f"with --skip-bad\n{told}"
                )
            if not converted.tasks:
                raise InputError("\n".join((f"{metadata} holds no edits that can be used", *converted.left_out)))
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error}") from error
    return converted


def _write(metadata: str, part: Path, split: str, limit: int | None, min_score: float | None) -> Converted:
    file = Path(metadata).expanduser()
    folder = file.resolve().parent if file.is_file() else None
    tasks: Counter[str] = Counter()
    left_out = []
    columns: set[str] = set()
    with (part / "edits.csv").open("w", newline="", encoding="utf-8") as csv_file:
        writer = csv.writer(csv_file)
        writer.writerow(("prompt", "task", "source_image", "target_image"))
        for row in metadata_rows(metadata, split):
            if not columns and not row.fault:
                columns = _checked(metadata, set(row.values))
            try:
                edit = _edit(row, folder, min_score)
            except InputError as error:
                left_out.append(f"row {row.number}: {error}")
                continue
            if edit is None:
                continue
            name = "-".join(filter(None, (f"{row.number:07d}", _slug(_cell(row, "name")))))
            places = []
            for kind, picture in (("source", edit.source), ("target", edit.target)):
                places.append(f"{kind}/{name}.{picture.suffix}" if picture else "")
                if picture:
                    (part / places[-1]).write_bytes(picture.data)
            writer.writerow((edit.prompt, edit.task, *places))
            tasks[edit.task] += 1
            if tasks.total() == limit:
                break
    return Converted(tasks, tuple(left_out))


def _checked(metadata: str, columns: set[str]) -> set[str]:
    for kind in NEEDED:
        if not columns.intersection(COLUMNS[kind]):
            raise InputError(
                f"{metadata} has no column for the {kind} ({', '.join(COLUMNS[kind])}): it has "
                f"{', '.join(sorted(columns)) or 'none'}"
            )
    return columns


def _edit(row: MetadataRow, folder: Path | None, min_score: float | None) -> _Edit | None:
    """None if its score is too low; InputError, with all that is wrong with the row."""
    if row.fault:
        raise InputError(row.fault)
    faults = []
    if min_score is not None:
        score = _cell(row, "score")
        try:
            if not float(score) >= min_score:
                return None
        except (TypeError, ValueError):
            faults.append(f"it has no o_score to compare, but {score!r}")
    prompt, kind = _prompt(_cell(row, "prompt")), _text(_cell(row, "task"))
    faults += [f"it has no {what}" for what, text in (("prompt", prompt), ("task", kind)) if not text]
    pictures: list[PictureFile | None] = []
    for which in ("source", "target"):
        value = _cell(row, which)
        if value is None and which == "source":
            faults.append("it has no source picture")
        try:
            pictures.append(None if value is None else picture_file(value, folder))
        except InputError as error:
            faults.append(f"its {which} {error}")
    if faults:
        raise InputError("; ".join(faults))
    task = "global_edit" if GLOBAL & set(re.split("[^a-z]+", kind.lower())) else "local_edit"
    return _Edit(prompt, task, *pictures)


def _cell(row: MetadataRow, kind: str) -> Any:
    """The first of the row's columns of this kind that is not blank; None if all are."""
    values = (row.values.get(column) for column in COLUMNS[kind])
    return next((value for value in values if value is not None and value != "" and value != []), None)


def _text(value: Any) -> str:
    if not isinstance(value, (str, int)):
        return ""
    # JSON can hold a NUL and halves of characters, which no CSV file in UTF-8 can.
    return " ".join(str(value).replace("\0", " ").encode("utf-8", "replace").decode().split())


def _prompt(value: Any) -> str:
    """A text, or the first one of a list, which in a CSV is written as JSON or Python."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(value.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(found, list):
                return _prompt(found)
    if isinstance(value, (list, tuple)):
        return next(filter(None, map(_text, value)), "")
    return _text(value)


def _slug(value: Any) -> str:
    """Letters, digits, dashes and underscores: nothing that any system takes for a path."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", _text(value)).strip("_")[:80]
