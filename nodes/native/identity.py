"""What a MODEL is, for a run's identity: the nodes that made it, and the files that they name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import folder_paths

from ...danceopd_core.errors import InputError

LENGTH = 16


def upstream_digest(prompt: Mapping[str, Any], node: str, inputs: tuple[str, ...]) -> str:
    """A digest of the nodes above some inputs of a node in the API format, with their files' sizes and dates.

    It is the same when the workflow is queued again, whatever the nodes are called, and another when a loader is
    changed, or a file that it names.
    """
    known: dict[str, str] = {}
    own = _inputs(prompt, node)
    return _digest({name: _described(prompt, own.get(name), known) for name in inputs})[:LENGTH]


def loader_files(prompt: Mapping[str, Any], node: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """The files that the nodes above some inputs name, as "node, input: file"."""
    found: dict[str, None] = {}
    waiting, seen = [_inputs(prompt, node).get(name) for name in inputs], set()
    while waiting:
        value = waiting.pop(0)
        if not isinstance(value, list) or len(value) != 2 or str(value[0]) not in prompt or str(value[0]) in seen:
            continue
        seen.add(str(value[0]))
        above = prompt[str(value[0])]
        for name, part in above["inputs"].items():
            if isinstance(part, str) and any(_files(part)):
                found[f"{above['class_type']}, {name}: {part}"] = None
        waiting += above["inputs"].values()
    return tuple(found)


def _inputs(prompt: Mapping[str, Any], node: str) -> Mapping[str, Any]:
    if node not in prompt:
        raise InputError(
            "the node was made by another node while the workflow ran, so a run could not be found again: put it in "
            "the workflow itself"
        )
    inputs: Mapping[str, Any] = prompt[node]["inputs"]
    return inputs


def _described(prompt: Mapping[str, Any], value: Any, known: dict[str, str]) -> Any:
    """A link as the digest of the node that it comes from; any other value with the files that it names.

    known: digests by node id: where branches meet again, as those of chained LoRAs, a node is described once.
    """
    if isinstance(value, list) and len(value) == 2 and str(value[0]) in prompt:
        source = str(value[0])
        if source not in known:
            node = prompt[source]
            above = {name: _described(prompt, part, known) for name, part in node["inputs"].items()}
            known[source] = _digest([node["class_type"], above])
        return [known[source], value[1]]
    return [value, list(_files(value))] if isinstance(value, str) else value


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _files(name: str) -> Iterator[tuple[str, int, int]]:
    for kind in sorted(folder_paths.folder_names_and_paths):
        try:
            path = folder_paths.get_full_path(kind, name)
        except (OSError, ValueError):  # a prompt is no file name
            continue
        if path and os.path.isfile(path):
            stat = os.stat(path)
            yield kind, stat.st_size, stat.st_mtime_ns
