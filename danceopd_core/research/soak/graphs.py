"""Small prompts for a server: a training, and one node without the pack to see whether the next prompt runs."""

from __future__ import annotations

import copy
import json
from typing import Any

from .comfy_server import ROOT

PROBE = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
}
AFTER = ("DanceOPD_Compare", "SaveImage", "PreviewImage")


def training(name: str, seed: int, steps: int = 1) -> dict[str, Any]:
    """The shipped workflow cfg_absorption with one short training and nothing after it."""
    graph: dict[str, Any] = json.loads((ROOT / "workflows/api/cfg_absorption.json").read_text(encoding="utf-8"))
    graph = {key: node for key, node in graph.items() if node["class_type"] not in AFTER}
    for node in graph.values():
        inputs = node["inputs"]
        if node["class_type"] == "DanceOPD_Train":
            inputs |= {"name": name, "seed": seed, "steps": steps, "batch": 1, "accumulate": 1, "rollout_steps": 2}
            inputs |= {"quality": "custom"}
            inputs |= {"validate_every": 0, "save_every": 1, "warmup": 0, "schedule": "constant"}
        if node["class_type"] == "DanceOPD_Student":
            inputs["rank"] = 4
        if "content.count" in inputs:
            inputs["content.count"] = 6
    return copy.deepcopy(graph)


def succeeded(entry: dict[str, Any] | None) -> bool:
    return bool(entry) and entry["status"]["status_str"] == "success"  # type: ignore[index]
