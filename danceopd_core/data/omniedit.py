"""Converts OmniEdit's metadata, or similar, to a CSV with a task for every edit and the pictures beside it."""

from __future__ import annotations

import ast
import csv
import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError, shown
from ..files import atomic
from ..outside import expanded
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
"""The columns that may hold each field of a row, OmniEdit's first."""
REQUIRED = ("prompt", "task", "source")
GLOBAL_EDIT_WORDS = frozenset(
    {"style", "background", "environment", "env", "weather", "tone", "lighting", "scene", "global"}
)
"""Words in an edit's type that mark it as a global edit; all others are local."""


class Converted(NamedTuple):
    tasks: Mapping[str, int]
    """Number of rows written, by task."""
    left_out: tuple[str, ...]
    """Why rows were left out, one entry per row."""


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
    edited_prompt_list. Only rows whose o_score is at least `min_score` are converted, at most `limit`.
    The folder is written completely or not at all. InputError if it is not empty, or, with every fault of every
    row, if rows cannot be used, unless `skip_bad` leaves them out.
    """
    out = Path(os.path.realpath(expanded(out)))  # not resolve(), which raises RuntimeError for a circle of links
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty: choose another output folder")
    if limit is not None and limit < 1:
        raise InputError(f"a limit of {limit} rows is too low: give at least 1")
    try:
        with atomic(out) as part:
            for kind in ("source", "target"):
                (part / kind).mkdir(parents=True)
            converted = _write(metadata, part, split, limit, min_score)
            if converted.left_out and not skip_bad:
                details = "\n".join(converted.left_out)
                raise InputError(
                    f"{metadata} has {len(converted.left_out)} rows that cannot be used: correct them, or leave them "
                    f"out with --skip-bad\n{details}"
                )
            if not converted.tasks:
                raise InputError("\n".join((f"{metadata} holds no usable edits", *converted.left_out)))
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error}") from error
    return converted


def _write(metadata: str, part: Path, split: str, limit: int | None, min_score: float | None) -> Converted:
    file = expanded(metadata)
    folder = Path(os.path.realpath(file)).parent if file.is_file() else None
    tasks: Counter[str] = Counter()
    left_out = []
    columns: set[str] = set()
    with (part / "edits.csv").open("w", newline="", encoding="utf-8") as csv_file:
        writer = csv.writer(csv_file)
        writer.writerow(("prompt", "task", "source_image", "target_image"))
        for row in metadata_rows(metadata, split):
            if not columns and not row.fault:
                columns = _check_columns(metadata, set(row.values))
            try:
                edit = _edit(row, folder, min_score)
            except InputError as error:
                left_out.append(f"row {row.number}: {error}")
                continue
            if edit is None:
                continue
            name = "-".join(filter(None, (f"{row.number:07d}", _slug(_cell(row, "name")))))
            paths = []
            for kind, picture in (("source", edit.source), ("target", edit.target)):
                paths.append(f"{kind}/{name}.{picture.suffix}" if picture else "")
                if picture:
                    (part / paths[-1]).write_bytes(picture.data)
            writer.writerow((edit.prompt, edit.task, *paths))
            tasks[edit.task] += 1
            if tasks.total() == limit:
                break
    return Converted(tasks, tuple(left_out))


def _check_columns(metadata: str, columns: set[str]) -> set[str]:
    """The columns; InputError unless every required field has one."""
    for kind in REQUIRED:
        if not columns.intersection(COLUMNS[kind]):
            raise InputError(
                f"{metadata} has no column for the {kind} ({', '.join(COLUMNS[kind])}): it has "
                f"{shown(', '.join(sorted(columns)), 300) or 'none'}"
            )
    for kind, names in COLUMNS.items():
        near = [name for name in columns if not columns.intersection(names) and get_close_matches(name, names, 1, 0.8)]
        if near:
            raise InputError(
                f"{metadata} has the column {shown(near[0], 60)!r}, which is not read and looks like that of the "
                f"{kind} ({', '.join(names)}): rename it"
            )
    return columns


def _edit(row: MetadataRow, folder: Path | None, min_score: float | None) -> _Edit | None:
    """The edit of a row, None if its score is too low; InputError with all faults of the row."""
    if row.fault:
        raise InputError(row.fault)
    faults = []
    if min_score is not None:
        score = _cell(row, "score")
        try:
            if not float(score) >= min_score:
                return None
        except (TypeError, ValueError):
            faults.append(f"its o_score is not a number: {score!r}")
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
    task = "global_edit" if GLOBAL_EDIT_WORDS & set(re.split("[^a-z]+", kind.lower())) else "local_edit"
    return _Edit(prompt, task, *pictures)


def _cell(row: MetadataRow, kind: str) -> Any:
    """The first non-empty value of the columns for this field; None if all are empty."""
    values = (row.values.get(column) for column in COLUMNS[kind])
    return next((value for value in values if value is not None and value != "" and value != []), None)


def _text(value: Any) -> str:
    if not isinstance(value, (str, int)):
        return ""
    # JSON strings can contain NUL and lone surrogates, which a CSV file in UTF-8 cannot.
    return " ".join(str(value).replace("\0", " ").encode("utf-8", "replace").decode().split())


def _prompt(value: Any) -> str:
    """A text, or the first one of a list, which in a CSV is a JSON or Python literal."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        for parse in (json.loads, ast.literal_eval):
            try:
                parsed = parse(value.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            if isinstance(parsed, list):
                return _prompt(parsed)
    if isinstance(value, (list, tuple)):
        return next(filter(None, map(_text, value)), "")
    return _text(value)


def _slug(value: Any) -> str:
    """A text reduced to letters, digits, dashes and underscores, safe as part of a file name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", _text(value)).strip("_")[:80]
