"""The LoRAs that a MODEL carries beyond another one, and those of several on one, as a chain of Load LoRA has them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from comfy.model_patcher import ModelPatcher

Patches = Mapping[str, list[tuple[Any, ...]]]
"""Weight -> its patches in order: strength, patch, strength of the model, offset and function, as ComfyUI has them."""


def loras_beyond(patcher: ModelPatcher, base: ModelPatcher) -> Patches:
    """The patches on a MODEL that the base does not have; empty unless it is the base's very network with LoRAs on it.

    Merged models have patches too: those hold whole weights, or lower the model's own strength.
    """
    if not patcher.is_clone(base):
        return {}
    found = {}
    for key, entries in patcher.patches.items():
        own = base.patches.get(key, [])
        if len(own) > len(entries) or any(a is not b for a, b in zip(own, entries, strict=False)):
            return {}
        found[key] = entries[len(own) :]
    added = [entry for entries in found.values() for entry in entries]
    if base.patches.keys() - patcher.patches.keys() or any(isinstance(e[1], list) or e[2] != 1 for e in added):
        return {}
    return {key: entries for key, entries in found.items() if entries}


def stacked(base: ModelPatcher, parts: Iterable[Patches]) -> ModelPatcher:
    """The base with the LoRAs of all parts on it, each at its strength; what several share, once."""
    patcher, there = base.clone(), set[int]()
    for part in parts:
        rounds: dict[tuple[int, float], dict[Any, Any]] = {}
        for key, entries in part.items():
            for number, (strength, patch, _, offset, function) in enumerate(entries):
                if id(patch) not in there:
                    rounds.setdefault((number, strength), {})[key, offset, function] = patch
        there |= {id(entry[1]) for entries in part.values() for entry in entries}
        for (_, strength), patches in rounds.items():
            patcher.add_patches(patches, strength)
    return patcher
