"""`danceopd soak`: attacks by seed on everything that takes something from outside, counted by outcome."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from .console import log, say
from .options import require_research


def add_arguments(subparsers: Any) -> None:
    parser = subparsers.add_parser("soak", help="attacks by seed on files, disks, runs and a server, counted")
    parser.add_argument("parts", nargs="*", metavar="PART", help="parsers, disk, kills, prompts, trainings; all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, help="attacks: of each kind of file, of each fault of a disk, or in all")
    parser.add_argument("--seconds", type=float, help="of parsers: as many attacks as this time allows")
    parser.add_argument("--freeze", type=float, default=20, help="seconds after which an attack on a parser is frozen")
    parser.add_argument("--kind", action="append", default=[], help="of parsers: only this kind of file")
    parser.add_argument("--first", type=int, default=0, help="of parsers: the number of the first attack")
    parser.add_argument("--comfyui", type=Path, help="folder of a ComfyUI, for prompts and trainings")
    parser.add_argument("--out", type=Path, help="folder for bad.txt: all bad outcomes, and how to repeat them")


def run(args: Namespace) -> int:
    """0 if nothing bad was seen, else 1."""
    require_research("danceopd soak")
    from ..research.soak.command import run_soak

    counts = run_soak(args, log)
    say(counts.table())
    return 1 if counts.bad else 0
