"""Runs over models that ComfyUI has loaded: how to queue one again, since no command line can load its model."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import InputError
from ...recipe.file_names import is_live
from ...recipe.schema import Recipe

SERVER = "http://127.0.0.1:8188"
"""Where ComfyUI listens unless it is told otherwise."""
WORKFLOW = "workflow.json"
"""In a run folder: the graph that started the run, in the format that ComfyUI's /prompt takes."""


def queue_command(workflow: Path) -> str:
    """The command that queues a run's workflow on a running ComfyUI. In PowerShell, `curl` is something else."""
    program = "curl.exe" if os.name == "nt" else "curl"
    return f'{program} -H "Content-Type: application/json" -d "@{workflow}" {SERVER}/prompt'


def refuse_live(recipe: Recipe, file: Path) -> None:
    """InputError, with the command that queues it, for the recipe of a run over a model that ComfyUI had loaded."""
    if not is_live(recipe.model):
        return
    workflow = file.resolve().parent / WORKFLOW
    if not workflow.is_file():
        raise InputError(
            f"{file}: its model was a MODEL of ComfyUI, which only ComfyUI can load, and there is no {WORKFLOW} beside "
            "it: queue the workflow that it was trained by"
        )
    raise InputError(
        f"{file}: its model was a MODEL of ComfyUI, which only ComfyUI can load. Start that, and queue the run with\n"
        f"  {queue_command(workflow)}"
    )
