"""What a bench compares, as values: a cell is one setting, one way to make a student in it, and a seed."""

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

BASE, BARE, MERGED, START = "base", "bare", "merged", "start"
"""Fields of every setting beside its teachers: the guided base, the base without guidance, the teachers' mean LoRA, and
what its students start as."""
SIZE, STEPS = 64, 8  # of the pictures that are scored, and that teachers draw


@dataclass(frozen=True)
class Task:
    """Capabilities to compose.

    routes: each teacher with the categories that it answers for. start: the LoRA that students start as, or "fresh".
    scored: categories. style: the share of things lit in this style is scored too.
    """

    teachers: Mapping[str, Teacher]
    routes: Mapping[str, tuple[str, ...]]
    start: str
    scored: tuple[str, ...] = T2I + EDIT
    style: str | None = None


_BASE = Teacher(guidance=GUIDANCE)
_EDIT, _LOCAL, _GLOBAL = (Teacher(lora=f"shapes:{name}") for name in ("edit", "local_edit", "global_edit"))
SETTINGS = {
    "t2i_edit": Task({BASE: _BASE, "edit": _EDIT}, {BASE: T2I, "edit": EDIT}, "shapes:edit"),
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


class DataRegime(NamedTuple):
    """What a student may learn from. pairs: targets a route, 0 for none, infinite for a new one every sample.
    wrong: the share of them that belong to another prompt. drawn: the teachers draw the targets."""

    words: str
    pairs: float = 0
    wrong: float = 0.0
    drawn: bool = False


REGIMES = {
    "prompts": DataRegime("prompts and source pictures, no targets"),
    "teachers": DataRegime("prompts and source pictures; targets are drawn by the teachers beforehand", drawn=True),
    "few": DataRegime("64 clean pairs a route", 64),
    "faulty": DataRegime("64 pairs a route, a quarter of them with the target of another", 64, 0.25),
    "unlimited": DataRegime("a new clean pair for every sample: an upper bound", math.inf),
}

# Joint data mixing is off-policy learning whose teacher is the data itself: flow matching.
TRAINED = METHODS | {"joint": Method(straight, Uniform(), velocity_mse, needs_clean=True)}


@dataclass(frozen=True)
class MethodConfig:
    """One way to a student; the defaults are DanceOPD's.

    field: another field than the student is scored as it is, and nothing is trained. first: a field that takes the
    first `until` steps of a picture instead of it. start: None, the setting's. query: None, the method's. soft: every
    prompt is answered by the mean of the teachers. group: paths a prompt. alpha: guidance of the teachers that have
    one, None for the setting's. betas: guidance at inference.
    """

    field: str = STUDENT
    method: str = "danceopd"
    data: str = "prompts"
    start: str | None = None
    query: QuerySampler | None = None
    router: Literal["weighted", "all"] = "weighted"
    soft: bool = False
    rollout_steps: int = 8
    group: int = 1
    alpha: float | None = None
    betas: tuple[float, ...] = (1.0,)
    first: str = ""
    until: int = 0

    @property
    def trains(self) -> bool:
        return self.field == STUDENT

    def core_method(self) -> Method:
        chosen = replace(lookup(TRAINED, self.method, "method"), group=self.group)
        return chosen if self.query is None else replace(chosen, query=self.query)


@dataclass(frozen=True)
class Trial:
    """A row of a setting's table from one seed. budget: trained on, or scored too, where the forwards of the
    transformer are those of DanceOPD's own run."""

    setting: str
    row: str
    approach: MethodConfig
    seed: int
    budget: bool = False

    @property
    def file(self) -> str:
        """The name of its result."""
        return re.sub(r"[^\w.]+", "-", f"{self.setting} {self.row} seed {self.seed}") + ".json"


@dataclass(frozen=True)
class BenchPlan:
    """What all cells have in common.

    steps: updates of `batch` paths, whatever the method. each: held-out items a category; brief: the same for the
    points of the curves. prompts: a route. rank: of a fresh student. dtype: of the frozen transformer. Adam's rate is
    constant after its warmup, so that a student at any point of the run is that of a run of that length; what is scored
    is its moving average.
    """

    steps: int = 120
    each: int = 256
    brief: int = 32
    batch: int = 16
    lr: float = 5e-4
    ema: float = 0.95
    warmup: int = 5
    prompts: int = 240
    rank: int = 32
    exam: int = 7
    dtype: str = "float32"


def teachers_of(cell: Trial) -> dict[str, Teacher]:
    """The setting's teachers under the cell's alpha."""
    alpha, found = cell.approach.alpha, SETTINGS[cell.setting].teachers
    return {
        name: teacher if alpha is None or teacher.guidance == 1 else replace(teacher, guidance=alpha)
        for name, teacher in found.items()
    }
