"""The metadata of a student's file: what LoRA managers, ComfyUI's page and this project read of it."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...data.images import upright
from ...outside import parse_json
from ...recipe.schema import Recipe
from ...weights.lora import Lora
from ...weights.lora_io import lora_metadata
from ...weights.safetensors_io import open_safetensors, write_safetensors
from .known_models import KnownModel

THUMBNAIL = 256
"""The longest side, in pixels."""


def student_metadata(
    recipe: Recipe,
    lora: Lora,
    *,
    family: str,
    title: str,
    date: str,
    update: int,
    run: str,
    tasks: Mapping[str, str],
    base: KnownModel | None,
) -> dict[str, str]:
    """modelspec.*, ss_* and the run under "danceopd"; without prompts and paths if the recipe is private.

    tasks: of the routes, "text-to-image" or "edit". base: the model that it is of, if it is a known one.
    """
    routes = ", ".join(route.name for route in recipe.routes)
    told: dict[str, Any] = {"digest": recipe.digest(), "update": update, "run": run, "tasks": dict(tasks)}
    metadata = lora_metadata(
        lora,
        family=family,
        title=title,
        date=date,
        usage_hint=f"{recipe.method}: {routes}",
        steps=update,
        learning_rate=recipe.optimizer.lr,
        extra=told if recipe.private else {"recipe": recipe.to_dict(), **told},
    )
    metadata |= {
        "modelspec.description": f"One LoRA for {routes}, distilled on-policy from frozen teachers in {update} "
        f"updates. Sample at strength 1 and guidance 1, in {recipe.path_steps} steps.",
        "modelspec.resolution": f"{recipe.width}x{recipe.height}",
        "modelspec.prediction_type": "flow",
        "modelspec.tags": ", ".join(["lora", "distillation", "danceopd", *dict.fromkeys(tasks.values())]),
    }
    if base is not None:
        metadata |= {"modelspec.base_model": base.repository, "modelspec.license": base.name or base.licence}
    return metadata


def thumbnail(file: Path) -> dict[str, str]:
    """A picture as a manager shows it, as metadata."""
    small = upright(file)
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    data = io.BytesIO()
    small.save(data, "JPEG", quality=85)
    return {"modelspec.thumbnail": f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"}


def workflow_metadata(workflow: Any) -> dict[str, str]:
    """The graph of a run, by which ComfyUI's page opens it when the file is dropped there."""
    if not isinstance(workflow, Mapping):
        return {}
    return {name: json.dumps(part) for name in ("workflow", "prompt") if (part := workflow.get(name))}


def copy_student(source: Path, target: Path, more: Mapping[str, str], recipe: Recipe) -> None:
    """Writes a student's file to another place, or anew to its own, under the title that it has there.

    more: entries of its metadata. recipe: of its run, which the file holds unless it is private.
    """
    with open_safetensors(source) as handle:
        metadata = handle.metadata() or {}
        tensors = {key: handle.get_tensor(key).clone() for key in handle.keys()}  # noqa: SIM118 (no dict)
    told = parse_json(metadata.get("danceopd", "{}"), f"the metadata of {source}")
    told = {name: value for name, value in told.items() if name != "recipe"} if isinstance(told, dict) else {}
    if not recipe.private:
        told["recipe"] = recipe.to_dict()
    own = {"danceopd": json.dumps(told, sort_keys=True), "modelspec.title": target.stem}
    write_safetensors(target, tensors, {**metadata, **more, **own})
