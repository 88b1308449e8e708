"""The presets of Train Student LoRA's `quality`: what they set, and which widgets stand against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..danceopd_core.errors import InputError

if TYPE_CHECKING:
    from ..danceopd_core.runs.plans.sources import ModelSource

CUSTOM = "custom"
QUERY: dict[str, Any] = {"k": 1, "bias": "low", "sigma_low": 0.0, "sigma_high": 0.0}
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {"rollout_steps": 8, **QUERY},
    "paper": {"rollout_steps": 16, **QUERY},
}
"""Widget -> value. The page gets them with the schema, writes them into the widgets, and turns to `custom` when one of
them is edited."""


def against_preset(values: Mapping[str, Any]) -> Iterator[str]:
    """Widgets whose values are not those of the preset that `quality` names. What another node gives is not there."""
    quality = values.get("quality", CUSTOM)
    for name, wanted in PRESETS.get(quality, {}).items():
        if name in values and values[name] != wanted:
            yield f"{name}: {values[name]} is not the {wanted} of quality '{quality}': set quality to {CUSTOM}"


def resolved(values: Mapping[str, Any], source: ModelSource) -> dict[str, Any]:
    """The widgets without `quality`; InputError for one that stands against it.

    Under a preset the rollout has as many steps as the model was distilled to, if it was and says so.
    """
    for fault in against_preset(values):
        raise InputError(fault)
    found = {name: value for name, value in values.items() if name != "quality"}
    if values.get("quality", CUSTOM) != CUSTOM and not source.facts().faults:
        found["rollout_steps"] = source.few_steps() or values["rollout_steps"]
    return found
