"""Training state in one safetensors file: tensors as tensors, everything else as JSON in its header; no pickle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from ..errors import InputError
from ..files import atomic
from ..weights.safetensors_io import open_safetensors

_KEY = "danceopd_state"


def save_state(path: str | Path, state: dict[str, Any]) -> None:
    """Writes a tree of dicts, lists, tensors and JSON values, atomically: the old file stays whole until then."""
    tensors: dict[str, Tensor] = {}

    def strip(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors[str(len(tensors))] = value.detach().cpu().contiguous()
            return {"tensor": str(len(tensors) - 1)}
        if isinstance(value, dict):
            # A list of pairs, because an optimizer's state is keyed by integers, which JSON objects cannot hold.
            return {"dict": [[key, strip(inner)] for key, inner in value.items()]}
        if isinstance(value, list | tuple):
            return {"list": [strip(inner) for inner in value]}
        return {"value": value}

    header = json.dumps(strip(state))
    with atomic(path) as temporary:
        save_file(tensors, temporary, {_KEY: header})


def load_state(path: str | Path) -> dict[str, Any]:
    """The tree that `save_state` wrote; InputError for a file that is no such state, or a damaged one."""
    with open_safetensors(Path(path)) as handle:
        metadata = handle.metadata() or {}
        tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (no dict)
    if _KEY not in metadata:
        raise InputError(f"{path} is not a training state: give the state.safetensors of a run folder")

    def build(node: dict[str, Any]) -> Any:
        ((kind, value),) = node.items()
        if kind == "tensor":
            return tensors[value]
        if kind == "dict":
            return {key: build(inner) for key, inner in value}
        if kind == "list":
            return [build(inner) for inner in value]
        return value

    return build(json.loads(metadata[_KEY]))
