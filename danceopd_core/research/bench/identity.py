"""The text that identifies a trial in its result file, and the names under which files hold a plan.

Result files outlive the code's names: a file is accepted only if its text equals the one made here. So the text is
written from the tables below, never from `repr`, and a renamed class or field leaves it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple
from zlib import crc32

from ...algorithm.query import Beta, BySigma, Uniform
from ...shapes import locate
from .trials import TASKS, BenchPlan, MethodConfig, Trial


class Stored(NamedTuple):
    """A class as files name it, and its fields in their order: the attribute -> its stored name.

    later: fields that came after the first files, with their defaults, at which they are left out.
    """

    name: str
    fields: dict[str, str]
    later: Mapping[str, Any] = MappingProxyType({})


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


STORED: dict[type, Stored] = {
    Trial: Stored(
        "Cell",
        {"task": "setting", "row": "row", "config": "approach", "seed": "seed", "equal_forwards": "budget"},
        {"equal_updates": True},
    ),
    MethodConfig: Stored(
        "Approach",
        {
            **_same("field", "method"),
            "regime": "data",
            "initial_lora": "start",
            **_same("query", "router"),
            "mix_teachers": "soft",
            **_same("rollout_steps", "group", "alpha", "betas"),
            "first_field": "first",
            "switch_step": "until",
        },
        {"lr": None},
    ),
    BenchPlan: Stored(
        "Plan",
        {
            "steps": "steps",
            "items": "each",
            "curve_items": "brief",
            **_same("batch", "lr", "ema", "warmup", "prompts", "rank"),
            "eval_seed": "exam",
            "dtype": "dtype",
        },
    ),
    Beta: Stored("Beta", _same("a", "b", "k")),
    Uniform: Stored("Uniform", _same("k")),
    BySigma: Stored("BySigma", _same("low", "high", "k")),
}


def trial_identity(trial: Trial, plan: BenchPlan) -> str:
    """All that decides the trial's result: itself, the plan, and a checksum of the weights that its task uses."""
    return f"{_text(trial)} under {_text(plan)} with weights {weights_checksum(trial.task):08x}"


def plan_record(plan: BenchPlan) -> dict[str, Any]:
    """The plan as a report file holds it."""
    return {stored: getattr(plan, name) for name, stored in STORED[BenchPlan].fields.items()}


def _text(value: object) -> str:
    if type(value) not in STORED:
        return repr(value)
    stored = STORED[type(value)]
    fields = stored.fields | {name: name for name, default in stored.later.items() if getattr(value, name) != default}
    return f"{stored.name}({', '.join(f'{name}={_text(getattr(value, field))}' for field, name in fields.items())})"


@cache
def weights_checksum(task: str) -> int:
    """CRC-32 over all weight files that a task uses; InputError if one of its teachers is missing."""
    teachers = TASKS[task].teachers.values()
    names = {name for teacher in teachers for name in (teacher.lora, teacher.checkpoint) if name}
    names |= {TASKS[task].initial_lora} - {"fresh"}
    paths = [locate("shapes") / "transformer", *map(locate, sorted(names))]
    checksum = 0
    for path in paths:
        for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
            checksum = crc32(file.read_bytes(), checksum)
    return checksum
