"""The samples of a run's model card, on one picture: each prompt's source, teacher, start and student side by side."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np

from ...data.images import upright
from ...errors import InputError
from ...files import atomic
from ..live.plots import SheetRow, contact_sheet
from ..live.strip import Strip

MOST = 8
"""Rows."""
COLUMNS = ("source", "teacher", "start", "student")


def write_sheet(run: Path, update: int, file: Path) -> bool:
    """Writes the sheet with the student's pictures after an update of a run, or the last before it.

    Whether there is one: without the student's pictures there is none, and one that was there is removed.
    """
    strip = Strip(run)
    table = strip.table()
    until = [number for number in table.columns if 0 < number <= update]
    if not until:
        file.unlink(missing_ok=True)
        return False
    empty = (None,) * len(table.rows)
    columns = [table.sources, table.teachers, table.columns.get(0, empty), table.columns[max(until)]]
    shown = [(name, files) for name, files in zip(COLUMNS, columns, strict=True) if any(files)]
    rows = [
        SheetRow(row.prompt, [_read(strip.folder, files[number]) for _, files in shown])
        for number, row in enumerate(table.rows[:MOST])
    ]
    largest = max((max(cell.shape) for row in rows for cell in row.cells if cell is not None), default=0)
    with atomic(file) as temporary:
        contact_sheet([name for name, _ in shown], rows, 256 if largest > 128 else 128).save(temporary, "PNG")
    return True


def _read(folder: Path, name: str | None) -> np.ndarray | None:
    if name is not None:
        with suppress(InputError):  # a damaged one is left out
            return np.array(upright(folder / name))
    return None
