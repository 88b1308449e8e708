"""What a MODEL is, for a run's identity: the nodes that made it, and the files that they name."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import folder_paths

LENGTH = 16


def upstream_digest(prompt: Mapping[str, Any], node: str, inputs: tuple[str, ...]) -> str:
    """A digest of the nodes above some inputs of a node in the API format, with their files' sizes and dates.

    It is the same when the workflow is queued again, whatever the nodes are called, and another when a loader is
    changed, or a file that it names.
    """
    links = {name: prompt[node]["inputs"].get(name) for name in inputs}
    text = json.dumps({name: _described(prompt, link) for name, link in links.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]


def loader_files(prompt: Mapping[str, Any], node: str, inputs: tuple[str, ...]) -> tuple[str, ...]:
    """The files that the nodes above some inputs name, as "node, input: file"."""
    found: dict[str, None] = {}
    waiting, seen = [prompt[node]["inputs"].get(name) for name in inputs], set()
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


def _described(prompt: Mapping[str, Any], value: Any) -> Any:
    """A link as the node that it comes from, with everything above; any other value with the files that it names."""
    if isinstance(value, list) and len(value) == 2 and str(value[0]) in prompt:
        node = prompt[str(value[0])]
        above = {name: _described(prompt, part) for name, part in node["inputs"].items()}
        return [node["class_type"], value[1], above]
    return [value, list(_files(value))] if isinstance(value, str) else value


def _files(name: str) -> Iterator[tuple[str, int, int]]:
    for kind in sorted(folder_paths.folder_names_and_paths):
        try:
            path = folder_paths.get_full_path(kind, name)
        except (OSError, ValueError):  # a prompt is no file name
            continue
        if path and os.path.isfile(path):
            stat = os.stat(path)
            yield kind, stat.st_size, stat.st_mtime_ns
