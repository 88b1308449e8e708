"""Runs the parts of the soak that were asked for, and counts."""

from __future__ import annotations

import importlib
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

from ...errors import InputError
from .disk import soak_disk
from .files import failures, soak_parsers
from .outcomes import DIFFERENT, OK, TRACEBACK, Counts
from .parsers import ATTACKS
from .prompts import soak_prompts
from .trainings import soak_trainings

PARTS = {"parsers": 100, "disk": 3, "kills": 6, "prompts": 60, "trainings": 200}
"""The number of attacks of each part: of each kind of file, of each fault, or in all."""
OVER_COMFYUI = ("prompts", "trainings")
KILLS = "danceopd_core.research.soak.kills"


def run_soak(args: Namespace, log: Callable[[str], None]) -> Counts:
    """The counts of all parts; the bad ones are told by `log`. InputError for arguments that cannot be."""
    parts = args.parts or [part for part in PARTS if part not in OVER_COMFYUI or args.comfyui]
    for given, known, what in ((parts, PARTS, "part"), (args.kind, ATTACKS, "--kind")):
        if odd := [name for name in given if name not in known]:
            raise InputError(f"{what} {odd[0]}: there are {', '.join(known)}")
    if args.comfyui is None and (needy := [part for part in parts if part in OVER_COMFYUI]):
        raise InputError(f"{needy[0]} needs a ComfyUI: give its folder as --comfyui")
    counts = Counts()
    with tempfile.TemporaryDirectory(prefix="danceopd-soak-") as temporary:
        for part in parts:
            number = PARTS[part] if args.count is None else args.count
            folder = Path(temporary) / part
            if part == "parsers":
                soak_parsers(counts, args.seed, number, args.seconds, args.freeze, args.kind, args.first, log)
            elif part == "disk":
                soak_disk(counts, args.seed, number, args.freeze * 20, folder, log)
            elif part == "kills" and find_spec(KILLS):
                _count_kills(counts, importlib.import_module(KILLS).kills(number, args.seed, folder, log=log))
            elif part == "prompts":
                soak_prompts(counts, number, args.seed, args.freeze * 10, args.comfyui.absolute(), folder, log)
            elif part == "trainings":
                soak_trainings(counts, number, args.seed, args.freeze * 10, args.comfyui.absolute(), folder, log)
    if told := failures(counts, args.out):
        log(told)
    return counts


def _count_kills(counts: Counts, found: Mapping[str, int]) -> None:
    """Each run that was killed and resumed until it had ended is one outcome."""
    differ, failed = found["differ"], found["failed"]  # a run that failed differs too
    outcomes = {OK: found["runs"] - differ, DIFFERENT: differ - failed, TRACEBACK: failed}
    counts.merge(f"runs under {found['kills']} kills", outcomes)
