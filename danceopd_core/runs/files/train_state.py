"""Training state in one safetensors file: tensors as tensors, everything else as JSON in its header; no pickle.

The header holds a checksum of every tensor and of the JSON, so that a flipped bit is found. Files of version 0.1.0 have
none.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from json import dumps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import InputError
from ...outside import parse_json
from ...weights.safetensors_io import open_safetensors, write_safetensors

_KEY = "danceopd_state"
_CHECKSUMS = "danceopd_checksums"


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

    header = dumps(strip(state))
    write_safetensors(path, tensors, {_KEY: header, _CHECKSUMS: dumps(_checksums(header, tensors))})


def load_state(path: str | Path) -> dict[str, Any]:
    """The tree that `save_state` wrote; InputError for a file that is no such state, or a damaged one."""
    with open_safetensors(Path(path)) as handle:
        metadata = handle.metadata() or {}
        tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (no dict)
    if _KEY not in metadata:
        raise InputError(f"{path} is not a training state: give the state.safetensors of a run folder")
    if _CHECKSUMS in metadata and parse_json(metadata[_CHECKSUMS], f"{path}") != _checksums(metadata[_KEY], tensors):
        raise InputError(f"{path} is damaged: its checksums do not fit its contents")

    def build(node: dict[str, Any]) -> Any:
        ((kind, value),) = node.items()
        if kind == "tensor":
            return tensors[value]
        if kind == "dict":
            return {key: build(inner) for key, inner in value}
        if kind == "list":
            return [build(inner) for inner in value]
        return value

    try:
        tree = build(parse_json(metadata[_KEY], f"{path}"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error
    if not isinstance(tree, dict):
        raise InputError(f"{path} is damaged: it holds no training state")
    return tree


def _checksums(header: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """By the name of the tensor, of its type, shape and values; "" for the JSON."""
    sums = {"": hashlib.sha256(header.encode()).hexdigest()}
    for name, tensor in tensors.items():
        digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        sums[name] = digest.hexdigest()
    return sums
