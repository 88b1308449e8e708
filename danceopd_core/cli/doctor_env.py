"""`danceopd doctor-env`: whether installing the pack would change what this Python holds. Imports nothing heavy."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parent.parent.parent


class Finding(NamedTuple):
    """A requirement here. `found` is None where it is not installed."""

    need: Requirement
    found: str | None

    @property
    def stays(self) -> bool:
        return self.found is not None and self.need.specifier.contains(Version(self.found), prereleases=True)

    @property
    def verdict(self) -> str:
        if self.found is None:
            return f"missing: would be added, {self.need.specifier}"
        return "stays" if self.stays else f"would become {self.need.specifier}"


def own_requirements() -> list[Requirement]:
    """What the pack needs: as its distribution says, else (a checkout in custom_nodes) its requirements.txt."""
    try:
        lines = requires("danceopd") or []
    except PackageNotFoundError:
        text = (ROOT / "requirements.txt").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    needs = [Requirement(line) for line in lines]
    return [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def findings(needs: Iterable[Requirement], find: Callable[[str], str | None] = installed) -> list[Finding]:
    return [Finding(need, find(need.name)) for need in needs]


def report(found: Iterable[Finding]) -> str:
    """A line for each requirement, and what it comes to."""
    found = list(found)
    cells = [("package", "needs", "installed", "an install of the pack")]
    cells += [(one.need.name, str(one.need.specifier), one.found or "-", one.verdict) for one in found]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    moved = [one.need.name for one in found if not one.stays]
    end = f"{len(moved)} would change: {', '.join(moved)}" if moved else "nothing would change"
    return "\n".join([f"Python {sys.version.split()[0]}, {sys.executable}", *lines, end])


def add_arguments(subparsers: Any) -> None:
    subparsers.add_parser("doctor-env", help="what installing the pack would change in this Python")


def run(args: Namespace) -> int:
    """Prints the report; 0 if an install would change nothing, else 1."""
    found = findings(own_requirements())
    print(report(found))
    return int(not all(one.stays for one in found))
