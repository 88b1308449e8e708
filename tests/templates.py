"""The shipped workflows: by the name of their API copy, which the file of the page's format holds."""

import json
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "workflows"
API = FOLDER / "api"


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


PAGES = {read(path)["extra"]["danceopd"]["api"]: path for path in sorted(FOLDER.glob("*.json"))}
"""Name -> the file whose name is the template's title."""
