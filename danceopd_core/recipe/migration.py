"""Recipe keys that were renamed, with which recipes and overrides are still read, and those that came later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import Fault

RENAMED = {"student.over": "student.base_lora"}
"""Old key -> new key, both in the same mapping of the recipe."""

SINCE: dict[str, Any] = {"held_out": 0.0}
"""Settings that came later and change a run, with what a run's folder means that does not have them."""


def migrated(tree: Any, faults: list[Fault]) -> Any:
    """A copy of a recipe's tree under the new keys; a fault where both the old and the new one are given."""
    for old, new in RENAMED.items():
        tree = _moved(tree, old.split(".")[:-1], old, new, faults)
    return tree


def migrated_path(keys: Sequence[str]) -> list[str]:
    """The keys of an override's path under the new names."""
    for old, new in RENAMED.items():
        length = old.count(".") + 1
        if ".".join(keys[:length]) == old:
            return [*new.split("."), *keys[length:]]
    return list(keys)


def _moved(node: Any, parents: Sequence[str], old: str, new: str, faults: list[Fault]) -> Any:
    if not isinstance(node, Mapping):
        return node
    if parents:
        parent = parents[0]
        return {**node, parent: _moved(node[parent], parents[1:], old, new, faults)} if parent in node else node
    old_key, new_key = old.rpartition(".")[2], new.rpartition(".")[2]
    if old_key in node and new_key in node:
        faults.append(Fault(old, f"this is the old name of {new}, which is given too: leave out {old}"))
        return {key: value for key, value in node.items() if key != old_key}
    return {new_key if key == old_key else key: value for key, value in node.items()}
