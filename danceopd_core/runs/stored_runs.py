"""The runs that lie on the disk: how large each is, and how one is deleted."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import InputError
from .records import RunRecord, all_runs
from .run_id import read_run, run_of_lora
from .run_lock import LOCK
from .run_names import check_name


def stored_runs(output: Path) -> list[dict[str, Any]]:
    """name, bytes, time, state, update and lora of every run, the newest first. lora: of this very run, or None."""
    found = [_stored(RunRecord(output, name)) for name in all_runs(output) if _is_own(name)]
    return sorted(found, key=lambda run: run["time"], reverse=True)


def delete_run(record: RunRecord) -> int:
    """Removes the folder of a run, whose published LoRA stays; returns its bytes.

    InputError while the run is training, and for a folder that is a link.
    """
    if record.path.is_symlink():
        raise InputError(f"{record.name} is a link to another folder: delete it there, and the link")
    with record.folder.lock():
        freed = _size(record.path)
        (record.path / "identity.json").unlink()  # no run any more, whatever comes between
        for entry in [path for path in record.path.iterdir() if path.name != LOCK]:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)
    with suppress(OSError):  # another process may have begun a run of that name
        (record.path / LOCK).unlink(missing_ok=True)
        record.path.rmdir()
    return freed


def _is_own(name: str) -> bool:
    try:
        return check_name(name) == name
    except InputError:
        return False


def _stored(record: RunRecord) -> dict[str, Any]:
    status, run = record.status() or {}, read_run(record.path).id
    record.find_lora()
    return {
        "name": record.name,
        "bytes": _size(record.path),
        "time": max(entry.stat().st_mtime for entry in (record.path, record.path / "identity.json")),
        "state": status.get("state", ""),
        "update": status.get("update", 0),
        "lora": record.lora.name if run and run_of_lora(record.lora) == run else None,
    }


def _size(folder: Path) -> int:
    return sum(entry.stat(follow_symlinks=False).st_size for entry in _files(folder))


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from _files(Path(entry.path))
            else:
                yield entry
