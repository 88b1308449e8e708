"""The trainers that are compared, each as a function that makes one update over the same pipeline and LoRA."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...recipe.schema import Bucket, Optimizer, Recipe, Route, Student, Teacher
from ...runs.training.session import TrainingSession, open_session
from .pipeline import TARGETS

PROMPTS = ("a red square", "two blue circles", "a cat", "a green triangle on a hill")


@dataclass(frozen=True)
class SpeedPlan:
    """What both trainers are given. pixels: of a side. accumulate: micro-steps of one sample in an update."""

    folder: Path
    pixels: int
    device: str
    dtype: torch.dtype
    rank: int = 16
    rollout_steps: int = 16
    accumulate: int = 4
    checkpointing: bool = False


def ours(plan: SpeedPlan, rollout_steps: int, compiled: bool = False) -> TrainingSession:
    """A run of this project: the base and a LoRA on it are the teachers."""
    teachers = {"base": Teacher(), "lora": Teacher(lora=str(plan.folder / "lora/adapter_model.safetensors"))}
    recipe = Recipe(
        model=str(plan.folder),
        teachers=teachers,
        routes=tuple(Route(name, name, Bucket(prompts=PROMPTS)) for name in teachers),
        student=Student(rank=plan.rank, alpha=plan.rank, targets=TARGETS),
        rollout_steps=rollout_steps,
        steps=1_000_000,
        batch=1,
        accumulate=plan.accumulate,
        optimizer=Optimizer(lr=2e-4, schedule="constant"),
        width=plan.pixels,
        height=plan.pixels,
        dtype=str(plan.dtype).removeprefix("torch."),  # type: ignore[arg-type]
        device=plan.device,
        gradient_checkpointing=plan.checkpointing,
        compile=compiled,
        out=str(plan.folder / "run"),
    )
    return open_session(recipe)


def official(plan: SpeedPlan, checkout: Path) -> Callable[[], None]:
    """The official trainer of a checkout of worldbench/DanceOPD, its loop's body: what it does for one update."""
    if not (checkout / "danceopd/core/engine.py").is_file():
        raise InputError(f"--official {checkout}: give a checkout of worldbench/DanceOPD")
    sys.path.insert(0, str(checkout))
    try:
        from accelerate import Accelerator
        from danceopd.backends.sd35_diffusers import SD35Backend  # type: ignore[import-not-found]
        from danceopd.core.config import _as_config, _deep_merge, load_config  # type: ignore[import-not-found]
        from danceopd.core.routing import WeightedRouter  # type: ignore[import-not-found]
        from danceopd.data.prompt_csv import PromptCSV, Sample  # type: ignore[import-not-found]
    except ImportError as error:
        raise InputError(f"--official {checkout}: {error}; install what it needs, such as peft") from error
    finally:
        sys.path.remove(str(checkout))
    config: Any = _as_config(_deep_merge(load_config(None), _settings(plan)))
    backend: Any = SD35Backend(config, Accelerator(cpu=plan.device == "cpu", mixed_precision=_precision(plan)))
    backend.prepare()
    router = WeightedRouter.from_config(config)
    data = PromptCSV([Sample(prompt, task) for prompt in PROMPTS for task in ("base", "lora")])

    def update() -> None:
        for route in router.accumulation_routes(None):
            for _ in range(plan.accumulate):
                loss = backend.compute_loss(sample=data.sample(route.dataset), route=route)
                backend.backward(loss / plan.accumulate)
                float(loss.detach())  # as its loop does for the log
        backend.optimizer_step()

    return update


def _settings(plan: SpeedPlan) -> dict[str, Any]:
    return {
        "backend": "sd35",
        "model": {"pretrained_model": str(plan.folder)},
        "student": {
            "init": "base", "lora_rank": plan.rank, "lora_alpha": plan.rank, "lora_target_modules": list(TARGETS),
        },
        "teachers": [{"name": "base"}, {"name": "lora", "lora_dir": str(plan.folder / "lora")}],
        "routing": {"routes": [{"teacher": name, "dataset": name, "weight": 1.0} for name in ("base", "lora")]},
        "training": {
            "output_dir": str(plan.folder / "official"), "resolution": plan.pixels, "grad_accum": plan.accumulate,
            "rollout_steps": plan.rollout_steps, "mixed_precision": _precision(plan),
        },
    }  # fmt: skip


def _precision(plan: SpeedPlan) -> str:
    return {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}[plan.dtype]
