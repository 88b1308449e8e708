"""Whether a teacher's diffusers folder is of the model's kind: the same architecture, and the same grid of sigmas."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .sigma_schedule import read_config

SCHEDULER_DEFAULTS: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "invert_sigmas": False,
    "shift_terminal": None,
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
    "time_shift_type": "exponential",
}
"""What decides the sigmas of diffusers' FlowMatchEulerDiscreteScheduler, with its defaults."""
DYNAMIC = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type")
"""Of these, what counts only where sigmas are shifted by the picture's size; then `shift` does not."""


def incompatibilities(checkpoint: Path, model: Path, model_schedule: bool) -> Iterator[str]:
    """A line for each way in which a teacher's transformer folder, or its pipeline, is unlike the model's.

    The teacher's network is the model's with other weights, asked on the model's grid: what its own configuration
    says otherwise would be lost without a word. A single file has no configuration; its weights are checked when it
    is read. model_schedule: whether the run takes the grid of the model, and so would have the teacher's.
    """
    if not checkpoint.is_dir():
        return
    folder = checkpoint / "transformer" if (checkpoint / "transformer").is_dir() else checkpoint
    file = folder / "config.json"
    if file.is_file():
        expected = read_config(model / "transformer" / "config.json")
        if told := _differing(*_architectures(expected, read_config(file))):
            yield f"{file} is another architecture than the model's: {told}. Give a fine-tune of this very model"
    file = folder.parent / "scheduler" / "scheduler_config.json"
    if model_schedule and file.is_file():
        expected = read_config(model / "scheduler" / "scheduler_config.json")
        if told := _differing(_grid(expected), _grid(read_config(file))):
            yield (
                f"{file} spaces sigmas otherwise than the model's: {told}. Say on which grid the student learns "
                "(sigmas: paper, or a shift), or give a teacher of the model's own"
            )


def _differing(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    names = [name for name in dict.fromkeys([*expected, *found]) if expected.get(name) != found.get(name)]
    return ", ".join(f"{name} is {found.get(name)!r}, expected {expected.get(name)!r}" for name in names)


def _architectures(expected: dict[str, Any], found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both without what only says who wrote them, and with the defaults of what one of them leaves out."""
    kind, other = ({"_class_name": config.get("_class_name")} for config in (expected, found))
    if kind != other:
        return kind, other
    both = [{k: v for k, v in config.items() if not k.startswith("_")} for config in (expected, found)]
    if both[0].keys() != both[1].keys():  # written by different versions of diffusers
        both = [{**_defaults(str(kind["_class_name"])), **config} for config in both]
    return both[0], both[1]


def _defaults(name: str) -> dict[str, Any]:
    import diffusers

    if name not in dir(diffusers):
        return {}
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
    given = {p.name: p.default for p in parameters if p.default is not p.empty}
    return json.loads(json.dumps(given))  # tuples become lists, as in the files


def _grid(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: config.get(name, default) for name, default in SCHEDULER_DEFAULTS.items()}
    unused = ("shift",) if found["use_dynamic_shifting"] else DYNAMIC
    kind = {"_class_name": config.get("_class_name")}
    return kind | {name: value for name, value in found.items() if name not in unused}
