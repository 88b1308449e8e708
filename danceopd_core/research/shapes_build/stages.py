"""Builds the embedded model from a seed, stage by stage: VAE, base, edit teachers, realism checkpoint; resumable."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ...errors import InputError
from ...models.loading import at_least
from .base import PRETRAINED, build_base, build_realism, pretrain_base
from .build_context import BuildContext, BuildPlan
from .card import write_card
from .edit_teachers import TEACHERS, build_teacher
from .pipeline import write_pipeline
from .training import Log
from .vae import build_vae

_NETWORKS: dict[str, Callable[[BuildContext, Log], None]] = {
    "loose": pretrain_base,
    "base": build_base,
    **{name: partial(build_teacher, name) for name in TEACHERS},
    "realism": build_realism,
}
STAGES = ("vae", *_NETWORKS)
"""In order; `danceopd shapes build --only` takes these names."""
_FOLDERS = {"vae": "vae", "loose": PRETRAINED, "base": "transformer", "realism": "realism"}


def build(
    plan: BuildPlan, out: Path, device: str, log: Callable[[str], None], stages: tuple[str, ...] = STAGES
) -> None:
    """Runs the stages that are not finished in `out`, in order; writes the model card when all are."""
    if not at_least("diffusers", "0.37"):  # earlier releases cannot modulate sources and noise separately
        raise InputError("shapes build needs diffusers 0.37 or later: pip install -U diffusers")
    out.mkdir(parents=True, exist_ok=True)
    torch_device = torch.device(device)
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for stage in stages:
        if _finished(out, stage):
            log(f"{stage}: already there")
            continue
        torch.manual_seed(plan.seed)
        if stage == "vae":
            build_vae(plan, out, torch_device, log)
            continue
        context = BuildContext(plan, out, torch_device)
        if stage == "loose":
            write_pipeline(out, context.tokenizer, context.text_encoder)
        _NETWORKS[stage](context, log)
    if all(_finished(out, stage) for stage in STAGES):
        write_card(plan, out)


def _finished(out: Path, stage: str) -> bool:
    if stage == "loose" and _finished(out, "base"):
        return True
    if stage in _FOLDERS:
        return (out / _FOLDERS[stage] / "config.json").exists()
    return (out / "loras" / f"{stage}.safetensors").exists()
