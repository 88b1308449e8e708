"""The runs that lie on the disk: how large each is, and how one is deleted.

output/danceopd/.deleted-<token>   a run that is being deleted
"""

from __future__ import annotations

import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...files import is_link
from ..files.run_id import read_run, run_of_lora
from .records import RunRecord, all_runs

DELETED = ".deleted-"
MOST_FILES = 100_000
"""Of a run whose sizes are added up."""
LEVELS = 10
"""Folders in each other that are removed at once: a path of them is short enough for every system."""


def stored_runs(output: Path) -> list[dict[str, Any]]:
    """name, bytes, time, state, update and lora of every run, the newest first. lora: of this very run, or None."""
    found = [_stored(RunRecord(output, name)) for name in all_runs(output)]
    return sorted(found, key=lambda run: run["time"], reverse=True)


def delete_run(record: RunRecord) -> int:
    """Removes the folder of a run, whose published LoRA stays; returns its bytes.

    InputError while the run is training, and for a folder that is a link.
    """
    _check(record)
    away = record.path.with_name(DELETED + secrets.token_hex(8))
    with record.folder.lock():
        if os.name != "nt":
            _move(record, away)
    if os.name == "nt":  # there, no folder with an open file is renamed: neither here, nor one that a run has taken
        _move(record, away)
    freed = _size(away)
    try:
        _remove(away)
    except OSError as error:
        raise InputError(
            f"{record.name} is no run any more, but not all of it could be removed ({error.strerror or error}): remove "
            f"what begins with {DELETED} in {away.parent}"
        ) from error
    return freed


def _check(record: RunRecord) -> None:
    if is_link(record.path):
        raise InputError(f"{record.name} is a link to another folder: delete it there, and the link")
    if not (record.path / "identity.json").is_file():
        raise InputError(f"{record.name} is no run any more")


def _move(record: RunRecord, away: Path) -> None:
    """Renames the folder, which is then no run's: one that takes its name begins in a new folder."""
    _check(record)
    try:
        record.path.rename(away)
        if is_link(away):  # it came there since the check
            away.rename(record.path)
            _check(record)
    except OSError as error:
        raise InputError(f"{record.name} cannot be deleted: {error.strerror or error}") from error


def _remove(folder: Path) -> None:
    """A folder with all that is in it, however deep that lies. Links are removed, not followed."""
    left = [folder]
    while left:
        top = left.pop()
        left += [deep.rename(top.with_name(DELETED + secrets.token_hex(8))) for deep in _at_depth(top)]
        shutil.rmtree(top)


def _at_depth(folder: Path) -> list[Path]:
    level = [folder]
    for _ in range(LEVELS):
        level = [Path(entry.path) for inner in level for entry in _entries(inner) if _is_folder(entry)]
    return level


def _stored(record: RunRecord) -> dict[str, Any]:
    found: dict[str, Any] = {"name": record.name, "bytes": _size(record.path), "time": 0.0}
    found |= {"state": "", "update": 0, "lora": None}
    with suppress(InputError, OSError, RecursionError, ValueError):  # of what cannot be read, what was found
        found["time"] = max(entry.stat().st_mtime for entry in (record.path, record.path / "identity.json"))
        status, run = record.status() or {}, read_run(record.path).id
        found |= {"state": status.get("state", ""), "update": status.get("update", 0)}
        record.find_lora()
        found["lora"] = record.lora.name if run and run_of_lora(record.lora) == run else None
    return found


def _size(folder: Path) -> int:
    """The bytes of its files, without those that cannot be reached or are too many."""
    left, files, size = [folder], 0, 0
    while left and files < MOST_FILES:
        for entry in _entries(left.pop()):
            if _is_folder(entry):
                left.append(Path(entry.path))
                continue
            with suppress(OSError):
                size += entry.stat(follow_symlinks=False).st_size
            files += 1
    return size


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    with suppress(OSError):
        return entry.is_dir(follow_symlinks=False) and not is_link(Path(entry.path))
    return False
