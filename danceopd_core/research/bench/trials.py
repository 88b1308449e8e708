"""The values that a bench compares: tasks, data regimes, method configurations, and trials (one of each and a seed)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from ...algorithm.losses import velocity_mse
from ...algorithm.methods import METHODS, Method
from ...algorithm.query import QuerySampler, Uniform
from ...algorithm.rollout import straight
from ...lookup import lookup
from ...recipe.schema import Teacher
from ...shapes import GUIDANCE
from ...shapes.language import EDIT, GLOBAL, LOCAL, T2I
from ...weights.adapters import STUDENT

BASE, UNGUIDED_BASE, MERGED, INITIAL = "base", "bare", "merged", "start"
"""Fields of every task beside its teachers: the guided base, the base without guidance, the mean of the teachers'
LoRAs, and the LoRA that students are initialised with."""
SIZE, STEPS = 64, 8
"""Pixels a side and sampler steps of scored images and of the targets that teachers generate."""


@dataclass(frozen=True)
class Task:
    """Capabilities to compose into one student.

    routes: teacher -> the categories of its prompts. initial_lora: of every student, or "fresh". scored: categories.
    style: the fraction of objects rendered in this style is scored too.
    """

    teachers: Mapping[str, Teacher]
    routes: Mapping[str, tuple[str, ...]]
    initial_lora: str
    scored: tuple[str, ...] = T2I + EDIT
    style: str | None = None


_BASE = Teacher(guidance=GUIDANCE)
_EDIT, _LOCAL, _GLOBAL = (Teacher(lora=f"shapes:{name}") for name in ("edit", "local_edit", "global_edit"))
_T2I_EDIT = Task({BASE: _BASE, "edit": _EDIT}, {BASE: T2I, "edit": EDIT}, "shapes:edit")
TASKS = {
    "t2i_edit": _T2I_EDIT,
    # Starts that lack global edits, and both capabilities.
    "t2i_edit_from_local": replace(_T2I_EDIT, initial_lora="shapes:local_edit"),
    "t2i_edit_from_fresh": replace(_T2I_EDIT, initial_lora="fresh"),
    "local_global": Task({"local": _LOCAL, "global": _GLOBAL}, {"local": LOCAL, "global": GLOBAL}, "shapes:local_edit"),
    "three_way": Task(
        {BASE: _BASE, "local": _LOCAL, "global": _GLOBAL},
        {BASE: T2I, "local": LOCAL, "global": GLOBAL},
        "shapes:local_edit",
    ),
    "realism": Task(
        {"realism": Teacher(checkpoint="shapes:realism", guidance=GUIDANCE)}, {"realism": T2I}, "fresh", T2I, "shaded"
    ),
}
"""`--setting` on the command line."""


class DataRegime(NamedTuple):
    """The training data of a student.

    pairs: targets per route; 0 for none, infinite for a new one with every sample. wrong_fraction: of the pairs whose
    target belongs to another prompt. teacher_generated: the teachers generate the targets before training.
    """

    description: str
    pairs: float = 0
    wrong_fraction: float = 0.0
    teacher_generated: bool = False


REGIMES = {
    "prompts": DataRegime("prompts and source pictures, no targets"),
    "teachers": DataRegime(
        "prompts and source pictures; targets are drawn by the teachers beforehand", teacher_generated=True
    ),
    "few": DataRegime("64 clean pairs a route", 64),
    "faulty": DataRegime("64 pairs a route, a quarter of them with the target of another", 64, 0.25),
    "unlimited": DataRegime("a new clean pair for every sample: an upper bound", math.inf),
}

# Joint training on mixed data is off-policy distillation whose teacher is the data itself: flow matching.
TRAINED = METHODS | {"joint": Method(straight, Uniform(), velocity_mse, needs_clean=True)}


@dataclass(frozen=True)
class MethodConfig:
    """How a student is trained and sampled; the defaults are DanceOPD's.

    field: a field other than the student is scored as it is, without training. first_field: takes the first
    `switch_step` sampler steps instead of `field`. initial_lora: None for the task's. query: None for the method's.
    mix_teachers: the target of every prompt is the mean of the teachers. group: paths per prompt. alpha: guidance scale
    of the guided teachers, None for the task's. betas: guidance scales at inference. lr: None for the plan's.
    """

    field: str = STUDENT
    method: str = "danceopd"
    regime: str = "prompts"
    initial_lora: str | None = None
    query: QuerySampler | None = None
    router: Literal["weighted", "all", "balanced"] = "weighted"
    mix_teachers: bool = False
    rollout_steps: int = 8
    group: int = 1
    alpha: float | None = None
    betas: tuple[float, ...] = (1.0,)
    first_field: str = ""
    switch_step: int = 0
    lr: float | None = None

    @property
    def trains(self) -> bool:
        return self.field == STUDENT

    def core_method(self) -> Method:
        method = replace(lookup(TRAINED, self.method, "method"), group=self.group)
        return method if self.query is None else replace(method, query=self.query)


@dataclass(frozen=True)
class Trial:
    """One row of a task's table with one seed.

    equal_forwards: the student is scored after as many forwards of the transformer as DanceOPD's run takes;
    equal_updates: after as many updates.
    """

    task: str
    row: str
    config: MethodConfig
    seed: int
    equal_forwards: bool = False
    equal_updates: bool = True

    @property
    def file_name(self) -> str:
        """Of its result."""
        return re.sub(r"[^\w.]+", "-", f"{self.task} {self.row} seed {self.seed}") + ".json"


@dataclass(frozen=True)
class BenchPlan:
    """The options that all trials of a bench share.

    steps: updates of `batch` paths, for every method. items: held-out items per category; curve_items: the same for the
    intermediate points of a curve. prompts: per route. rank: of a fresh student. eval_seed: of the held-out items and
    their noise. dtype: of the frozen transformer. The learning rate is constant after its warmup, and the moving
    average of the weights is scored, so each point of a curve equals the end of a shorter run.
    """

    steps: int = 120
    items: int = 256
    curve_items: int = 32
    batch: int = 16
    lr: float = 5e-4
    ema: float = 0.95
    warmup: int = 5
    prompts: int = 240
    rank: int = 32
    eval_seed: int = 7
    dtype: str = "float32"


def teachers_of(trial: Trial) -> dict[str, Teacher]:
    """The task's teachers, the guided ones with the trial's alpha."""
    alpha, teachers = trial.config.alpha, TASKS[trial.task].teachers
    return {
        name: teacher if alpha is None or teacher.guidance == 1 else replace(teacher, guidance=alpha)
        for name, teacher in teachers.items()
    }
