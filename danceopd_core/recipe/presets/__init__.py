"""Recipes of the paper (DanceOPD, arXiv 2606.27377), to be filled in with one's own files."""

from __future__ import annotations

import re
from pathlib import Path

from ...lookup import lookup

FOLDER = Path(__file__).parent
FAST = {"rollout_steps": "8  # 16 in the paper, which loses next to nothing with 8: GEdit 5.739 for 5.751"}
"""What a fast recipe has otherwise: half of the cost of an update's rollout, at the paper's own price."""


def presets() -> dict[str, str]:
    """Every recipe by its name: what it is, in a line."""
    files = sorted(FOLDER.glob("*.yaml"))
    return {file.stem: file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for file in files}


def preset_text(name: str, fast: bool = False) -> str:
    """The recipe file of that name, with its comments; InputError for an unknown one."""
    lookup(presets(), name, "recipe of the paper")
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    changes = FAST if fast else {}
    for key, value in changes.items():
        text = re.sub(rf"^{key}: .*$", f"{key}: {value}", text, count=1, flags=re.MULTILINE)
    return text
