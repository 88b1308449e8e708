"""Quick checks of a CSV table, before anything of it is used: its rows, and the headers of its pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import InputError
from .csv_rows import CsvRows, numbered_rows
from .images import header_fault
from .roots import Roots

MAX_FAULTS = 10
"""Rows with an unusable picture that are listed one by one; the rest are counted."""
EDIT = re.compile(r"(^|[\W_])edit(s|ing)?$", re.IGNORECASE)
"""What the task of an edit is called."""


def table_faults(path: str | Path, task: str | None, roots: Roots, most: int) -> Iterator[str]:
    """A sentence for each fault. task: of the rows that are used; None: all are. roots: where files have to lie.

    most: pictures up to which their headers are read.
    """
    try:
        rows = numbered_rows(path, task, roots)
    except InputError as error:
        yield str(error)
        return
    yield from (f"{path}: {message}" for message in edits_without_source(rows))
    yield from (f"{path}{message}" for message in _pictures(rows, most))


def edits_without_source(rows: CsvRows) -> Iterator[str]:
    """A sentence if the tasks of rows say that they are edits and none of these has a source picture.

    Only tables that are held in memory are looked through.
    """
    edits = [row for row in rows if EDIT.search(row.item.task)] if isinstance(rows, tuple) else []
    if edits and not any(row.item.source for row in edits):
        numbers = ", ".join(str(row.number) for row in edits[:5])
        yield (
            f"{len(edits)} of {len(rows)} rows have a task that is called {edits[0].item.task!r} and no source_image "
            f"(row {numbers}{' ...' if len(edits) > 5 else ''}), so they would be learned as text-to-image: give each "
            "the picture that it edits, or call the task something else"
        )


def _pictures(rows: CsvRows, most: int) -> Iterator[str]:
    if not isinstance(rows, tuple) or len(rows) > most:
        return
    named = [(row.number, file) for row in rows for file in (row.item.source, row.item.target)]
    found = [(number, file) for number, file in named if isinstance(file, Path)]
    files = sorted({file for _, file in found})
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        faults = dict(zip(files, pool.map(header_fault, files), strict=True))
    faulty = [(number, faults[file]) for number, file in found if faults[file]]
    for number, message in faulty[:MAX_FAULTS]:
        yield f", row {number}: {message}"
    if len(faulty) > MAX_FAULTS:
        yield f": {len(faulty) - MAX_FAULTS} more pictures cannot be used"
