"""Which files of this machine a table may name: any, or only those below some folders.

Whoever may upload a table to a server could otherwise have its files shown, and learn which ones there are.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from ..outside import expanded

Roots = tuple[Path, ...] | None
"""The folders that files must lie in; None: any file of the machine, as on the command line."""


def file_of(text: str | Path, folder: Path, roots: Roots) -> Path:
    """The file that a text means, relative to `folder`.

    With roots, it is the file itself, with all links followed, and InputError if that lies outside. The sentence
    is the same whether there is such a file or not, and nothing outside is looked at: `..` goes up by name before any
    link is followed.
    """
    if roots is None:
        return folder / expanded(text)
    named = "" if str(text).startswith("~") else os.path.normpath(os.path.join(folder, text))
    real = [os.path.realpath(root) for root in roots]
    try:
        if named and _below(named, [*map(os.path.abspath, roots), *real]):
            found = os.path.realpath(named)
            if _below(found, real):
                return Path(found)
    except (OSError, ValueError):  # ValueError: a null character
        pass
    names = ", ".join(dict.fromkeys(root.name for root in roots))
    raise InputError(f"'{text}' lies outside of the folders that files may be in ({names}): copy it there")


def _below(path: str, roots: list[str]) -> bool:
    path = os.path.normcase(path)
    return any(path.startswith(os.path.join(os.path.normcase(root), "")) for root in roots)
