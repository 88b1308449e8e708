"""Every setting of a recipe changes the run, and the digest changes exactly when the run does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from danceopd_core.recipe.io import read_recipe
from danceopd_core.recipe.schema import Optimizer, Query, Recipe, Student, Teacher
from danceopd_core.runs.training.session import open_session
from danceopd_core.weights.linear_like import linear_shapes
from danceopd_core.weights.lora_io import write_lora

from ..loras import random_lora
from ..tiny import save_twin

RECIPE = """
model: {model}
teachers:
  base: {{guidance: 3, negative: bad}}
  other: {{lora: other.safetensors, strength: 0.7}}
routes:
  - {{name: one, teacher: base, bucket: {{prompts: [a red cat, a dog, no]}}}}
  - {{name: two, teacher: other, bucket: {{prompts: [a blue cat, a fish]}}}}
student: {{rank: 4, alpha: 2}}
optimizer: {{lr: 1e-2, schedule: constant_with_warmup, warmup: 1}}
router: all
steps: 3
accumulate: 1
rollout_steps: 4
width: 32
height: 32
dtype: float32
device: cpu
"""

FLOWOPD = ("method=flowopd", "group=2", "router=round_robin")
DIFFUSIONOPD = ("method=diffusionopd",)
WEIGHTED = ("router=weighted",)
CHANGES = {  # setting: an override that must change the run
    "teachers": "teachers.other.checkpoint={full}",
    "teachers.checkpoint": "teachers.base.checkpoint={full}",
    "teachers.lora": "teachers.other.lora={more}",
    "teachers.strength": "teachers.other.strength=0.5",
    "teachers.guidance": "teachers.base.guidance=2",
    "teachers.negative": "teachers.base.negative=worse",
    "teachers.model": "teachers.base.model={twin}",
    "routes": "routes.0.teacher={{base: 0.5, other: 0.5}}",
    "student.start": "student.start={more}",
    "student.rank": "student.rank=2",
    "student.alpha": "student.alpha=4",
    "student.targets": "student.targets=[to_q]",
    "student.base_lora": "student.base_lora={more}",
    "optimizer.lr": "optimizer.lr=2e-2",
    "optimizer.weight_decay": "optimizer.weight_decay=0.5",
    "optimizer.betas": "optimizer.betas=[0.5, 0.9]",
    "optimizer.clip": "optimizer.clip=1e-4",
    "optimizer.schedule": "optimizer.schedule=cosine",
    "optimizer.warmup": "optimizer.warmup=2",
    "optimizer.ema": "optimizer.ema=0.5",
    "optimizer.name": "optimizer.name=adafactor",
    "query.bias": "query.bias=high",
    "query.k": "query.k=2",
    "query.sigma": "query.sigma=[0.8, 1]",
    "router": "router=round_robin",
    "steps": "steps=2",
    "batch": "batch=2",
    "accumulate": "accumulate=2",
    "rollout_steps": "rollout_steps=3",
    "width": "width=48",
    "height": "height=48",
    "seed": "seed=1",
    "dtype": "dtype=bfloat16",
    "method": "method=diffusionopd",
    "sigmas": "sigmas={{shift: 1.5}}",
    "components": "components={{transformer: {full}}}",
}


@pytest.fixture(scope="module")
def files(zimage_folder: Path, opened_zimage, tmp_path_factory) -> dict[str, Path]:
    """The recipe file, and the weight files that its settings can name."""
    folder = tmp_path_factory.mktemp("session")
    shapes = linear_shapes(opened_zimage.network)
    for seed, name in enumerate(("other", "more"), 1):
        write_lora(folder / f"{name}.safetensors", random_lora(shapes, 3, seed))
    from safetensors.torch import save_file

    weights = {name: 1.1 * tensor for name, tensor in opened_zimage.network.state_dict().items()}
    save_file(weights, folder / "full.safetensors")
    (folder / "recipe.yaml").write_text(RECIPE.format(model=zimage_folder), encoding="utf-8")
    return {name: folder / f"{name}.safetensors" for name in ("other", "more", "full")} | {
        "recipe": folder / "recipe.yaml",
        "twin": save_twin(folder / "twin", zimage_folder),
    }


@pytest.fixture(scope="module")
def run(files) -> Callable[..., tuple]:
    """(digest, results, final state) of the recipe with these overrides; each is trained once."""
    known: dict[tuple, tuple] = {}

    def train(*overrides: str) -> tuple:
        if overrides not in known:
            recipe = read_recipe(files["recipe"], [text.format(**files) for text in overrides])
            trainer = open_session(recipe).trainer
            results = [(r.losses, r.errors, r.indices, r.sigmas, r.grad_norm, r.lr) for r in trainer]
            state = {**trainer.student.state_dict(), **{f"mean.{k}": v for k, v in trainer.averaged().items()}}
            known[overrides] = recipe.digest(), results, state
        return known[overrides]

    return train


def same(one: tuple, two: tuple) -> bool:
    (_, results, state), (_, others, other) = one, two
    return results == others and state.keys() == other.keys() and all(torch.equal(state[k], other[k]) for k in state)


@pytest.mark.parametrize(
    ("extra", "change"),
    [
        *(((), change) for change in CHANGES.values()),
        (WEIGHTED, "routes.0.weight=0"),
        (FLOWOPD, "eta=0.3"),
        (FLOWOPD, "group=3"),
        (FLOWOPD, "anchor=0.5"),
        (DIFFUSIONOPD, "ode_kl_weight=uniform"),
    ],
    ids=lambda value: value.partition("=")[0] if isinstance(value, str) else "",
)
def test_a_setting_changes_the_run_and_its_digest(run, extra, change):
    before, after = run(*extra), run(*extra, change)
    assert before[0] != after[0]
    assert not same(before, after)


@pytest.mark.parametrize(
    "change",
    ["out=elsewhere", "save_every=1", "keep_states=3", "offload=true", "device=auto", "memory=manual"],
)
def test_what_the_digest_leaves_out_changes_nothing(run, change):
    extra = ("teachers.base.checkpoint={full}",)
    if change == "device=auto" and torch.cuda.is_available():
        pytest.skip("another device rounds otherwise")
    before, after = run(*extra), run(*extra, change)
    assert before[0] == after[0]
    assert same(before, after)


def test_the_seed_determines_the_fresh_student(files):
    def student(seed: int) -> dict[str, torch.Tensor]:
        return open_session(read_recipe(files["recipe"], [f"seed={seed}"])).trainer.student.state_dict()

    first, again, other = student(0), student(0), student(1)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert all(not torch.equal(first[key], other[key]) for key in first if key.endswith("lora_A"))


def test_gradient_checkpointing_changes_no_more_than_the_rounding(run):
    before, after = run(), run("gradient_checkpointing=true")
    for one, other in zip(before[1], after[1], strict=True):
        assert one[0] == pytest.approx(other[0], rel=1e-4)
        assert one[2:4] == other[2:4]


def test_no_setting_is_forgotten_here():
    tested = {*CHANGES, "eta", "group", "anchor", "ode_kl_weight", "out", "save_every", "keep_states", "offload"}
    tested |= {"device", "gradient_checkpointing", "memory"}
    # Another model; tests/models/test_quantise, tests/data, test_aspects, test_model_card, test_compiled, and
    # tests/algorithm/test_held_out.
    elsewhere = {"model", "quantise", "learned_router", "aspects", "private", "compile", "held_out"}
    parts = {"student": Student, "optimizer": Optimizer, "query": Query}
    names = {field.name for field in fields(Recipe)} - parts.keys()
    names |= {f"{part}.{field.name}" for part, kind in parts.items() for field in fields(kind)}
    names |= {f"teachers.{field.name}" for field in fields(Teacher)}
    assert names - elsewhere == tested
