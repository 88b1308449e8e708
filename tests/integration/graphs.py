"""The shipped API workflows, made short."""

import copy

from ..templates import API as FOLDER
from ..templates import PAGES, read

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
RUNNABLE = [name for name in NAMES if not name.startswith("paper_")]
"""Without those that name a person's own models and data."""


def native_names() -> list[str]:
    """The workflows over Load Shapes in which other loaders are waiting."""
    return sorted(name for name, path in PAGES.items() if '"UNETLoader"' in path.read_text(encoding="utf-8"))


def shipped(name: str) -> dict:
    return read(FOLDER / f"{name}.json")


def short(name: str, run: str | None = None, **train) -> dict:
    """A workflow with few prompts and few, small updates, under another run name."""
    graph = copy.deepcopy(shipped(name))
    for node in graph.values():
        inputs = node["inputs"]
        if node["class_type"] == "DanceOPD_Train":
            inputs |= {"steps": 4, "batch": 2, "rollout_steps": 3, "validate_every": 2, "save_every": 2, "warmup": 1}
            inputs |= {"quality": "custom"}
            inputs |= {"name": run or f"short_{name}", **train}
        if "content.count" in inputs:
            inputs["content.count"] = 12
        if node["class_type"] == "DanceOPD_Compare":
            inputs |= {"rows": 1, "steps": 2}
    return graph


def only_training(name: str, run: str, **train) -> dict:
    """Without what comes after the training."""
    graph = short(name, run, **train)
    after = ("DanceOPD_Compare", "SaveImage", "PreviewImage")
    return {key: node for key, node in graph.items() if node["class_type"] not in after}


def node_of(graph: dict, kind: str) -> str:
    return next(key for key, node in graph.items() if node["class_type"] == f"DanceOPD_{kind}")
