"""Trains the edit teachers: LoRAs on the frozen base, in a fast phase and a regularised one."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ...shapes.language import EDIT, GLOBAL, LOCAL, T2I
from ...weights.adapters import Adapters
from ...weights.lora import fresh_lora
from ...weights.lora_io import read_lora, write_lora
from .base import CAPTIONS
from .build_context import BuildContext, BuildPlan
from .fit import BaseReplay
from .quick_score import quick_score
from .training import Log, score_text, train
from .training_data import sample_items

RANK = 32
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "w1", "w2", "w3")
FAST_PHASE = ".{}_rough.safetensors"
"""The LoRA after a teacher's fast phase; interrupted builds of earlier versions have it."""


class TeacherConfig(NamedTuple):
    """fast, regularised: the fractions of the plan's steps that the two phases take. replay_every: in the regularised
    phase, one step in so many is on the base's velocities for captions. initial: the teacher whose fast phase this one
    starts from, because all kinds of edits share most of what is learned first."""

    categories: tuple[str, ...]
    fast: float
    regularised: float = 0.0
    replay_every: int = 0
    initial: str = ""

    def steps(self, plan: BuildPlan) -> tuple[int, int]:
        return round(self.fast * plan.edit.steps), round(self.regularised * plan.regularised.steps)


TEACHERS = {
    "local_edit": TeacherConfig(LOCAL, 1.0, 0.6, 4),
    "edit": TeacherConfig(EDIT, 0.6, 1.0, 3, "local_edit"),
    "global_edit": TeacherConfig(GLOBAL, 0.0, 0.08, 8),
}


def build_teacher(name: str, context: BuildContext, log: Log) -> None:
    """Trains a LoRA that edits through the multi-image path of the frozen base; saves it to out/loras.

    The fast phase, on edits alone and without weight decay, makes the LoRA larger than the base's weights and unlearns
    text-to-image, so that a student initialised with it hardly learns that or other edits. The regularised phase
    shrinks it with weight decay, and replays the base's velocities for captions.
    """
    plan, teacher = context.plan, TEACHERS[name]
    (context.out / "loras").mkdir(exist_ok=True)
    network = context.load_network()
    data = context.data(network, sample_items(teacher.categories, plan.images, plan.seed + 20))
    adapters = Adapters(network)
    fast_file = context.out / FAST_PHASE.format(name)
    if fast_file.exists() or teacher.initial:
        initial = fast_file if fast_file.exists() else context.out / FAST_PHASE.format(teacher.initial)
        lora = read_lora(initial, adapters.shapes)
    else:
        lora = fresh_lora(adapters.shapes, RANK, RANK, TARGETS, torch.Generator().manual_seed(plan.seed + 21))
    adapters.start_student(lora)
    parameters: dict[str, Tensor] = {**adapters.named_parameters()}

    def evaluate() -> dict[str, float]:
        t2i = quick_score(context, network, T2I, 1.0, 8)["mean"]
        return quick_score(context, network, teacher.categories, 1.0, 8) | {"text-to-image": t2i}

    fast_steps, regularised_steps = teacher.steps(plan)
    if fast_steps and not fast_file.exists():
        config = replace(plan.edit, seed=plan.seed + 22, steps=fast_steps)
        train(context, f"{name}_rough", network, parameters, data, config, log, evaluate)
        write_lora(fast_file, adapters.student(), dtype=torch.float16)
    if regularised_steps:
        captions = context.data(network, sample_items(CAPTIONS, plan.images // 4, plan.seed + 23))
        config = replace(
            plan.regularised, seed=plan.seed + 24, steps=regularised_steps, replay_every=teacher.replay_every
        )
        replay = BaseReplay(captions, context.load_network())
        train(context, name, network, parameters, data, config, log, evaluate, replay)
    for scale in (1.0, 1.5):
        log(f"{name}, guidance {scale}: {score_text(quick_score(context, network, EDIT, scale, 8))}")
    log(f"{name}, text-to-image: {score_text(quick_score(context, network, T2I, 1.0, 8))}")
    write_lora(context.out / "loras" / f"{name}.safetensors", adapters.student(), dtype=torch.float16)
