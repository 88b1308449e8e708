"""Recipes for the user to fill in the paths of files: the paper's (DanceOPD, arXiv 2606.27377), and newer models'."""

from __future__ import annotations

import re
from pathlib import Path

from ...lookup import lookup

FOLDER = Path(__file__).parent
FAST = {"rollout_steps": "8  # 16 in the paper; GEdit 5.751 with 16, 5.739 with 8"}
"""Changes of a fast recipe: half the cost of an update's rollout, at the loss of quality that the paper measured."""


def presets() -> dict[str, str]:
    """The recipes by name, each with its one-line description."""
    files = sorted(FOLDER.glob("*.yaml"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for file in files}


def preset_text(name: str, fast: bool = False) -> str:
    """The text of a recipe file, with its comments; InputError for an unknown name."""
    lookup(presets(), name, "recipe")
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    changes = FAST if fast else {}
    for key, value in changes.items():
        text = re.sub(rf"^{key}: .*$", f"{key}: {value}", text, count=1, flags=re.MULTILINE)
    return text
