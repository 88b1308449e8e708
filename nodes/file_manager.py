"""Opens a folder in the file manager of the server's machine."""

from __future__ import annotations

import os
import shutil
import subprocess  # nosec B404: one fixed program, without a shell
import sys
import threading
from pathlib import Path

from ..danceopd_core.errors import InputError


def open_folder(folder: Path) -> None:
    """Shows the folder there; InputError, with its path, on a machine without a desktop."""
    program = _program()
    if program is None:
        raise InputError(f"this machine has no file manager: the folder is {folder}")
    shown = subprocess.Popen(  # nosec B603: no shell, and the path is of a run's own folder
        [program, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    threading.Thread(target=shown.wait, daemon=True).start()


def _program() -> str | None:
    if os.name == "nt":  # by its place: a search would begin in the current folder
        return shutil.which(str(Path(os.environ.get("SYSTEMROOT", "C:\\Windows")) / "explorer.exe"))
    if sys.platform == "darwin":
        return shutil.which("open")
    desktop = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return shutil.which("xdg-open") if desktop else None
