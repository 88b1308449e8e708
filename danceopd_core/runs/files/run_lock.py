"""The lock of a run's folder: one process at a time trains in it, and another is told which one that is.

The operating system lets go of the lock when its process ends, however that ends.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from ...errors import InputError
from ...files import write_text
from ...outside import read_json

LOCK = ".lock"
HOLDER = ".holder.json"
"""Which process holds the lock: the lock's own file cannot be read on every system."""


class RunLock:
    """Holds a run's folder, which is created, for the block. InputError, naming the process that holds it, if one does.

    A folder that the lock created and that is still without a run at the end of the block is removed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / LOCK, timeout=0)
        self._created: list[Path] = []

    def __enter__(self) -> RunLock:
        missing = [path for path in (self._folder, *self._folder.absolute().parents) if not path.exists()]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._created = missing
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"{self._folder} is in use by {holder(self._folder)}: wait until that ends, or choose another folder"
            ) from None
        except OSError as error:
            raise InputError(f"{self._folder} cannot be written to ({error.strerror or error})") from error
        if not (self._folder / LOCK).exists():  # the lock that was taken is elsewhere, with the folder
            self._lock.release()
            raise InputError(f"{self._folder} was deleted just now: try again")
        began = datetime.now(timezone.utc).isoformat(timespec="seconds")
        text = json.dumps({"process": os.getpid(), "host": socket.gethostname(), "since": began})
        with suppress(OSError):  # the lock itself is what counts
            write_text(self._folder / HOLDER, text + "\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):
            (self._folder / HOLDER).unlink(missing_ok=True)
        with suppress(OSError):  # the folder may be gone
            self._lock.release()
        if self._created and not (self._folder / "recipe.yaml").exists():
            with suppress(OSError):
                (self._folder / LOCK).unlink(missing_ok=True)
                for path in self._created:
                    path.rmdir()


def holder(folder: Path) -> str:
    """The process that holds the lock of a run's folder, in words."""
    try:
        found = read_json(folder / HOLDER, "the lock")
        return f"process {int(found['process'])} on {found['host']!s} since {found['since']!s}"
    except (InputError, KeyError, TypeError, ValueError):
        return "another process"
