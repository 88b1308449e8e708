"""What a name in a recipe means: a file, a part of the embedded model, or what ComfyUI had loaded."""

from __future__ import annotations

import os
from pathlib import Path

from ..outside import expanded
from ..shapes import is_embedded

LIVE = "comfyui:"
"""Prefix of the names of models and teachers that ComfyUI had loaded, and that are no files."""


def is_live(name: str) -> bool:
    """Whether a name means a model that ComfyUI had loaded, and no file."""
    return name.startswith(LIVE)


def absolute_name(name: str, folder: Path) -> str:
    """The absolute path, relative to `folder` if the file exists there, else to the current folder.

    Names that are no files stay as they are.
    """
    if is_embedded(name) or is_live(name):
        return name
    name = str(expanded(name))
    return os.path.abspath(folder / name if os.path.exists(folder / name) else name)
