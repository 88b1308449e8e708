"""Runs on the tiny Z-Image for the tests of what ends a run, and the comparison of two of them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open

RECIPE = """
model: {model}
teachers: {{base: {{guidance: 3}}}}
routes:
  - {{name: one, teacher: base, bucket: {{prompts: [a red cat, a dog, no]}}}}
  - {{name: two, teacher: base, bucket: {{csv: {csv}}}}}
student: {{rank: 2}}
optimizer: {{lr: 1e-3, ema: 0.5}}
router: round_robin
steps: 6
batch: 1
accumulate: 2
rollout_steps: 2
width: 32
height: 32
save_every: 2
dtype: float32
device: cpu
"""


def write_recipe(folder: Path, model: Path) -> Path:
    """A recipe of two routes with a moving average, so that every counter moves; 6 updates, saved every second."""
    csv = folder / "prompts.csv"
    csv.write_text("prompt\na fish\na bird\n", encoding="utf-8")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=model, csv=csv), encoding="utf-8")
    return recipe


def history(run: Path) -> list[dict]:
    lines = (run / "history.jsonl").read_text(encoding="utf-8").splitlines()
    return [{**json.loads(line), "seconds": None} for line in lines]


def tensors(file: Path) -> dict[str, torch.Tensor]:
    with safe_open(file, "pt") as handle:
        return {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118


def assert_same_run(run: Path, whole: Path) -> None:
    """The same history, student and state, bit for bit, and nothing left over."""
    assert history(run) == history(whole)
    for name in ("student.safetensors", "state.safetensors"):
        a, b = tensors(run / name), tensors(whole / name)
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    assert not [path for path in run.rglob("*") if path.name.endswith(".part")]
