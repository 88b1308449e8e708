"""Atomic writes: a file or folder is written beside its place and then moved there, so it is complete or absent.

What was moved survives the loss of power: the file is on the disk before the move, and the folder after it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

_HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
_NUMBERS = count()
PART = re.compile(r"\.danceopd-(?P<host>[0-9a-f]{8})-(?P<process>\d+)-\d+(\.\w+)?\.part")
"""Names of temporary files: host and process id, so that two writers do not meet and leftovers are recognised."""
FORMER = re.compile(r"\..+\.\d+\.part|\.tmp[0-9A-Za-z]{6}")
"""Those of version 0.1.0, and of the safetensors library."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`, which is created; at the end of the block moves it to `path`.

    The block writes a file or a folder there. If it raises, `path` keeps what it had and the temporary path is
    removed. A file gets the permissions of the process's umask. OSError if `path` is a folder that is not empty.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".danceopd-{_HOST}-{os.getpid()}-{next(_NUMBERS)}.part")
    try:
        yield temporary
        if temporary.is_file():
            _allow(temporary)
            _to_disk(temporary)
        if path.is_dir():
            path.rmdir()  # Windows replaces no folder, not even an empty one
        os.replace(temporary, path)
        _to_disk(path.parent)
    finally:
        _remove(temporary)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically, with line ends as they are in `text`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def is_link(path: Path) -> bool:
    """Whether a path leads elsewhere: a symbolic link, or a junction of Windows."""
    junction = getattr(os.path, "isjunction", None)  # from Python 3.12 on
    return path.is_symlink() or bool(junction and junction(path))


def remove_leftovers(folder: Path, is_left: Callable[[str], bool]) -> list[str]:
    """Removes the temporary files in a folder whose names `is_left`; returns the names. A folder that is not there
    has none."""
    if not folder.is_dir():
        return []
    left = [path for path in folder.iterdir() if is_left(path.name)]
    for path in left:
        _remove(path)
    return sorted(path.name for path in left)


def is_temporary(name: str) -> bool:
    """Whether atomic writes of this or an earlier version name their temporary files so."""
    return bool(PART.fullmatch(name) or FORMER.fullmatch(name))


def is_abandoned(name: str) -> bool:
    """Whether it is a temporary file of a process of this machine that is gone."""
    match = PART.fullmatch(name)
    return match is not None and match["host"] == _HOST and not _runs(int(match["process"]))


def _runs(process: int) -> bool:
    """Whether the process may be there still."""
    if os.name == "nt":
        return True  # there, signal 0 would end it
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # somebody else's
    return True


def _allow(file: Path) -> None:
    """Gives a file that only its owner may read, as a library's temporary file, the permissions of any new file."""
    if os.name == "nt" or stat.S_IMODE(file.stat().st_mode) & 0o077:
        return
    probe = file.with_suffix(".probe.part")  # reading the umask would change it for all threads for a moment
    try:
        probe.touch(exist_ok=False)
        file.chmod(stat.S_IMODE(probe.stat().st_mode))
    finally:
        probe.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        with suppress(*((OSError,) if path.is_dir() else ())):  # some network file systems cannot for folders
            os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)
