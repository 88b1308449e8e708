"""Which names can be those of files on every system, and on this one, checked before hours of training end at them."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

from ...errors import InputError

NAME = re.compile(r"\w(?:[\w .+-]{0,98}[\w+-])?")
RESERVED = re.compile(r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³])", re.IGNORECASE)
"""Windows's devices; a name is one with anything behind a dot, too."""
MOST_BYTES = 229
"""Of a run's name in UTF-8: with what is added to it, it stays below the 255 that file systems take."""
MOST_PART_BYTES = 255


ENDING = ".safetensors"


def without_ending(name: str) -> str:
    """The name of a LoRA of whose file somebody may have given the name."""
    name = name.strip()
    return name[: -len(ENDING)].rstrip() if name.lower().endswith(ENDING) else name


def check_name(name: str) -> str:
    """A name that is one file's on every system, without the ending of that file."""
    name = without_ending(name)
    if not NAME.fullmatch(name):
        raise InputError(
            f"name: '{name}' cannot name a LoRA: take letters, digits, spaces and - _ + . and no folders, 100 at most"
        )
    if is_reserved(name):
        raise InputError(f"name: '{name}' cannot name a LoRA: Windows keeps it for a device: choose another name")
    length = len(name.encode("utf-8"))
    if length > MOST_BYTES:
        raise InputError(
            f"name: '{name}' cannot name a LoRA: it takes {length} bytes, and file systems take {MOST_BYTES} of it: "
            "choose a shorter one, of 76 letters at most in Chinese or Japanese"
        )
    return name


def is_file_name(name: str) -> bool:
    """Whether a name from outside can be that of one file in a folder: short enough, without folders and controls."""
    try:
        length = len(name.encode("utf-8"))
    except UnicodeEncodeError:  # halves of characters
        return False
    odd = any(sign in '\\/:*?"<>|\x7f' or ord(sign) < 32 for sign in name)
    return 0 < length <= MOST_PART_BYTES and not odd and name not in (".", "..")


def is_reserved(name: str) -> bool:
    """Whether Windows takes a file of this name for a device."""
    return bool(RESERVED.fullmatch(name.partition(".")[0].rstrip(" ")))


def check_twin(path: Path) -> None:
    """InputError if the folder of `path` has a file that differs from it in upper and lower case only.

    On Windows and macOS both would be one file. A file of this very name is none.
    """
    if not path.parent.is_dir():
        return
    names = {entry.name for entry in path.parent.iterdir()}
    twins = sorted(name for name in names if _folded(name) == _folded(path.name) and name != path.name)
    if twins and path.name not in names:
        raise InputError(
            f"name: '{path.name}' and '{twins[0]}', which is there, differ in upper and lower case only, and are one "
            "file on Windows and macOS: choose another name, or that one"
        )


def check_place(path: Path) -> None:
    """InputError if a part of a path is longer than a file's name can be, or a device of this system."""
    for part in path.parts:
        length = len(os.fsencode(part))
        if length > MOST_PART_BYTES:
            raise InputError(f"{part[:20]}... takes {length} bytes, and a name {MOST_PART_BYTES} at most: shorten it")
        if os.name == "nt" and part != path.anchor and (is_reserved(part) or part != part.rstrip(". ")):
            raise InputError(f"{part} cannot be a folder or file on Windows: choose another name")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
