"""Prints what CHANGELOG.md says of a tagged version; fails where the tag, pyproject.toml and CHANGELOG.md disagree."""

import re
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).parent.parent


def notes(tag: str, changelog: str, version: str) -> str:
    """The section of the version that the tag names, without its heading."""
    if tag != f"v{version}":
        raise SystemExit(f"the tag is {tag}, and pyproject.toml says {version}")
    section = re.search(rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## |^\[[^\]]+\]: |\Z)", changelog, re.M | re.S)
    if not section or not section[1].strip():
        raise SystemExit(f"CHANGELOG.md says nothing of {version}")
    return section[1].strip() + "\n"


if __name__ == "__main__":
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    sys.stdout.write(notes(sys.argv[1], (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), project["version"]))
