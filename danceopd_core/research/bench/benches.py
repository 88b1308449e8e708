"""The benches: named sets of method configurations to compare, as trials."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ...algorithm.query import Beta, BySigma, QuerySampler, Uniform
from ...shapes import GUIDANCE
from .trials import BASE, INITIAL, MERGED, STEPS, TASKS, UNGUIDED_BASE, MethodConfig, Trial

Rows = dict[str, MethodConfig]


class Bench(NamedTuple):
    """tasks: the default ones. equal_forwards: rows are compared at equal forwards too, or, without equal_updates, at
    these alone. rows: task -> its rows."""

    tasks: tuple[str, ...]
    equal_forwards: bool
    rows: Callable[[str], Rows]
    equal_updates: bool = True


def sources(task: str) -> Rows:
    """The fields to compose: the guided base and the teachers."""
    teachers = {f"teacher-{name}": MethodConfig(field=name) for name in TASKS[task].teachers if name != BASE}
    return {BASE: MethodConfig(field=BASE), **teachers}


def is_source(row: str) -> bool:
    return row == BASE or row.startswith("teacher-")


def composition(task: str) -> Rows:
    """The paper's methods, and joint training in every data regime."""
    teachers = TASKS[task].teachers.values()
    # A student without a guided teacher to learn from may be guided at inference instead.
    betas = (1.0, GUIDANCE) if any(teacher.guidance != 1 for teacher in teachers) else (1.0,)
    joint = MethodConfig(method="joint", betas=betas)
    return {
        **sources(task),
        **({"merge": MethodConfig(field=MERGED, betas=betas)} if any(teacher.lora for teacher in teachers) else {}),
        "joint-few": replace(joint, regime="few"),
        "joint-faulty": replace(joint, regime="faulty"),
        "joint-unlimited": replace(joint, regime="unlimited"),
        "offpolicy": MethodConfig(method="offpolicy", regime="teachers"),
        "diffusionopd": MethodConfig(method="diffusionopd", router="all"),
        "flowopd": MethodConfig(method="flowopd", router="all", group=4),
        "mixed": MethodConfig(mix_teachers=True),
        "danceopd": MethodConfig(),
        # A student that starts as a copy of its source leaves the source's path only by what it learns at early
        # states, and keeps a changed path by what it learns at late ones.
        "danceopd-uniform": MethodConfig(query=Uniform()),
        # Shares that follow what the routes have still to learn.
        "danceopd-balanced": MethodConfig(router="balanced"),
        "danceopd-uniform-balanced": MethodConfig(query=Uniform(), router="balanced"),
    }


def on_policy(task: str) -> Rows:
    """The methods that learn from teachers alone."""
    names = ("offpolicy", "diffusionopd", "flowopd", "danceopd", "danceopd-uniform")
    return sources(task) | {name: config for name, config in composition(task).items() if name in names}


def ablations(task: str) -> Rows:
    """DanceOPD with one component changed at a time."""
    biases: dict[str, QuerySampler] = {"mid": Beta(5, 5), "high": Beta(2, 5), "uniform": Uniform()}
    # Of the eight states of this grid: two, three and three.
    ranges = {"low": (0.0, 0.55), "mid": (0.55, 0.85), "high": (0.85, 1.0), "uniform": (0.0, 1.0)}
    return {
        **sources(task),
        "danceopd": MethodConfig(),
        **{f"query-{name}": MethodConfig(query=bias) for name, bias in biases.items()},
        **{f"query-sigma-{name}": MethodConfig(query=BySigma(*ends)) for name, ends in ranges.items()},
        **{f"k-{k}": MethodConfig(query=Beta(5, 2, k)) for k in (2, 4, 8)},
        **{f"rollout-{steps}": MethodConfig(rollout_steps=steps) for steps in (4, 16)},
        **{f"start-{lora}": MethodConfig(initial_lora=lora) for lora in ("fresh", MERGED)},
        "routing-all": MethodConfig(router="all"),
        "routing-soft": MethodConfig(mix_teachers=True),
        "off-policy": MethodConfig(method="offpolicy", regime="teachers"),
    }


def operators(task: str) -> Rows:
    """Guidance absorbed by the student at alpha and applied to it at beta; a full checkpoint's style absorbed."""
    if task == "realism":
        teachers = {name: MethodConfig(field=name) for name in TASKS[task].teachers}
        return {BASE: MethodConfig(field=BASE), **teachers, "danceopd": MethodConfig()}
    betas = (1.0, GUIDANCE, 2 * GUIDANCE)
    return {
        UNGUIDED_BASE: MethodConfig(field=UNGUIDED_BASE, betas=betas),
        **{f"alpha-{alpha:g}": MethodConfig(alpha=alpha, betas=betas) for alpha in (1.0, GUIDANCE, 2 * GUIDANCE)},
    }


def turning(task: str) -> Rows:
    """Switches between the initial LoRA and a teacher at each sampler step, without training.

    Shows until which step a path of the initial LoRA can become a teacher's, and from which step on it stays one.
    """
    teachers = [name for name, teacher in TASKS[task].teachers.items() if teacher.lora != TASKS[task].initial_lora]
    switches = [(name, step) for name in teachers for step in range(1, STEPS)]
    return {
        INITIAL: MethodConfig(field=INITIAL),
        **{name: MethodConfig(field=name) for name in teachers},
        **{f"{name}-after-{k}": MethodConfig(field=name, first_field=INITIAL, switch_step=k) for name, k in switches},
        **{f"{name}-until-{k}": MethodConfig(field=INITIAL, first_field=name, switch_step=k) for name, k in switches},
    }


BENCHES = {
    "composition": Bench(("t2i_edit", "local_global"), True, composition),
    "starts": Bench(("t2i_edit_from_local", "t2i_edit_from_fresh"), True, on_policy, equal_updates=False),
    "ablations": Bench(("local_global",), False, ablations),
    "operators": Bench(("t2i_edit", "realism"), False, operators),
    "turning": Bench(("local_global",), False, turning),
}


def trials_of(bench: Bench, tasks: Sequence[str], seeds: Sequence[int]) -> Iterator[Trial]:
    """Seed by seed, so that the tables are complete whenever a seed is finished."""
    for seed in seeds:
        for task in tasks:
            for row, config in bench.rows(task).items():
                yield Trial(task, row, config, seed, bench.equal_forwards, bench.equal_updates)
