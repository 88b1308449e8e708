"""The prompts of a benchmark's file that an evaluation generates, with everything that is wrong with the file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .folder import prompts_digest
from .gedit import PAPER, attach_images, read_gedit
from .geneval import read_geneval
from .layouts import LAYOUTS, BenchmarkPrompt, name_fault, path_collisions, select_prompts
from .tables import open_table


class PromptSelection(NamedTuple):
    """prompts: the selected ones. digest: of all prompts of the file. out: the folder of their pictures."""

    prompts: list[BenchmarkPrompt]
    digest: str
    out: Path
    faults: list[str]


def select_geneval(file: Path, out: Path, tags: Sequence[str], limit: int | None) -> PromptSelection:
    """The prompts of GenEval's evaluation_metadata.jsonl with these tags, or all; at most `limit`."""
    prompts, faults = read_geneval(file)
    selected = [] if faults else select_prompts(prompts, tags, limit)
    return PromptSelection(selected, prompts_digest(prompts), out, [f"{file}, {fault}" for fault in faults])


def select_gedit(
    source: str, out: Path, name: str, language: str, tasks: Sequence[str], limit: int | None
) -> PromptSelection:
    """The edits of GEdit-Bench in this language ("all": in both) with these tasks, or all; at most `limit`.

    name: of the model, as the scorer shows it, and of the folder in `out`. tasks: ["paper"] for those of the paper.
    """
    if fault := name_fault(name):
        raise InputError(f"--name {fault}")
    table = open_table(source)
    prompts, faults = read_gedit(table)
    digest = prompts_digest(prompts)
    faults += path_collisions(prompts, LAYOUTS["gedit"], 1)
    if not faults:
        in_language = [prompt for prompt in prompts if language in (prompt.language, "all")]
        prompts, faults = attach_images(
            select_prompts(in_language, PAPER if list(tasks) == ["paper"] else tasks, limit), table
        )
    return PromptSelection(prompts, digest, out / name, [f"{source}, {fault}" for fault in faults])
