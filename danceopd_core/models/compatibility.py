"""Compares a teacher's diffusers folder with the model's: architecture and sigma schedule must be the same."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .part_files import read_settings

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
"""The settings of diffusers' FlowMatchEulerDiscreteScheduler that determine its sigmas, with their defaults."""
DYNAMIC_SHIFTING = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len", "time_shift_type")
"""Those that apply only with dynamic shifting (by picture size); `shift` then does not apply."""


def incompatibilities(checkpoint: Path, model: Path, model_schedule: bool) -> Iterator[str]:
    """A line for each incompatibility of a teacher's transformer or pipeline folder with the model.

    The teacher is run as the model's network with other weights, on the model's sigmas, so differing settings in its
    own configuration would be silently ignored. A single file has no configuration; its weights are checked when it
    is read. model_schedule: whether the run uses the model's sigma schedule; schedules are compared only then.
    """
    if not os.path.isdir(checkpoint):
        return
    folder = checkpoint / "transformer" if (checkpoint / "transformer").is_dir() else checkpoint
    file = folder / "config.json"
    if file.is_file():
        expected = read_settings(model / "transformer" / "config.json")
        if changes := _changes(*_architectures(expected, read_settings(file))):
            yield f"{file} is of another architecture than the model: {changes}. Give a fine-tune of this very model"
    file = folder.parent / "scheduler" / "scheduler_config.json"
    if model_schedule and file.is_file():
        expected = read_settings(model / "scheduler" / "scheduler_config.json")
        if changes := _changes(_schedule(expected), _schedule(read_settings(file))):
            yield (
                f"{file} has another sigma schedule than the model: {changes}. Set the schedule of the run (sigmas: "
                "paper, or a shift), or give a teacher with the model's schedule"
            )


def _changes(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    names = [name for name in dict.fromkeys([*expected, *found]) if expected.get(name) != found.get(name)]
    return ", ".join(f"{name} is {found.get(name)!r}, expected {expected.get(name)!r}" for name in names)


def _architectures(expected: dict[str, Any], found: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both configurations without metadata, and with default values for what only one of them lists."""
    expected_class, found_class = ({"_class_name": config.get("_class_name")} for config in (expected, found))
    if expected_class != found_class:
        return expected_class, found_class
    both = [{k: v for k, v in config.items() if not k.startswith("_")} for config in (expected, found)]
    if both[0].keys() != both[1].keys():  # written by different versions of diffusers
        both = [{**_defaults(str(expected_class["_class_name"])), **config} for config in both]
    return both[0], both[1]


def _defaults(name: str) -> dict[str, Any]:
    import diffusers

    if name not in dir(diffusers):
        return {}
    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    return json.loads(json.dumps(defaults))  # tuples become lists, as in the files


def _schedule(config: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: config.get(name, default) for name, default in SCHEDULER_DEFAULTS.items()}
    unused = ("shift",) if settings["use_dynamic_shifting"] else DYNAMIC_SHIFTING
    scheduler = {"_class_name": config.get("_class_name")}
    return scheduler | {name: value for name, value in settings.items() if name not in unused}
