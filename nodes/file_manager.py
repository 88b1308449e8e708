"""Opens a folder in the file manager of the server's machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess  # nosec B404: one fixed program, without a shell
import sys
import threading
from pathlib import Path

from ..danceopd_core.errors import InputError

BUNDLES = re.compile(
    r"\.(action|app|appex|bundle|component|framework|kext|mdimporter|mpkg|pkg|plugin|prefpane|qlgenerator|rtfd|saver|"
    r"scptd|service|sparsebundle|vst3?|wdgt|workflow|xpc)",
    re.IGNORECASE,
)
"""Endings of folders that macOS takes for programs or documents, which it starts or installs."""


def open_folder(folder: Path) -> None:
    """Shows the folder there; InputError, with its path, on a machine without a desktop, and for a bundle of macOS."""
    if BUNDLES.fullmatch(folder.suffix):
        raise InputError(f"a folder whose name ends with {folder.suffix} is not opened: it is {folder}")
    program = _program()
    if not program:
        raise InputError(f"this machine has no file manager: the folder is {folder}")
    shown = subprocess.Popen(  # nosec B603: no shell, and the path is of a run's own folder
        [*program, str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    threading.Thread(target=shown.wait, daemon=True).start()


def _program() -> list[str]:
    """The command to which the folder is added; empty without one."""
    if os.name == "nt":  # by its place: a search would begin in the current folder
        return _found(str(Path(os.environ.get("SYSTEMROOT", "C:\\Windows")) / "explorer.exe"))
    if sys.platform == "darwin":
        return _found("open", "-R")  # shows where it lies: without, it would start what it takes for a program
    desktop = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return _found("xdg-open") if desktop else []


def _found(program: str, *words: str) -> list[str]:
    place = shutil.which(program)
    return [place, *words] if place else []
