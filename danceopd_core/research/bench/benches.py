"""The benches, each as the cells that it compares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ...algorithm.query import Beta, BySigma, QuerySampler, Uniform
from ...shapes import GUIDANCE
from .cells import BARE, BASE, MERGED, SETTINGS, START, STEPS, MethodConfig, Trial

Rows = dict[str, MethodConfig]


class Bench(NamedTuple):
    """settings: those that it is run in unless others are asked for. budget: rows are compared at equal forwards too.
    rows: of a setting, by name."""

    settings: tuple[str, ...]
    budget: bool
    rows: Callable[[str], Rows]


def sources(setting: str) -> Rows:
    """What there is to compose: the guided base and the teachers."""
    found = {f"teacher-{name}": MethodConfig(field=name) for name in SETTINGS[setting].teachers if name != BASE}
    return {BASE: MethodConfig(field=BASE), **found}


def is_source(row: str) -> bool:
    return row == BASE or row.startswith("teacher-")


def composition(setting: str) -> Rows:
    """The paper's methods, with joint training in every data regime."""
    taught = SETTINGS[setting].teachers
    # What learns from no guided teacher may be guided at inference instead.
    betas = (1.0, GUIDANCE) if any(teacher.guidance != 1 for teacher in taught.values()) else (1.0,)
    joint = MethodConfig(method="joint", betas=betas)
    return {
        **sources(setting),
        **({"merge": MethodConfig(field=MERGED, betas=betas)} if any(t.lora for t in taught.values()) else {}),
        "joint-few": replace(joint, data="few"),
        "joint-faulty": replace(joint, data="faulty"),
        "joint-unlimited": replace(joint, data="unlimited"),
        "offpolicy": MethodConfig(method="offpolicy", data="teachers"),
        "diffusionopd": MethodConfig(method="diffusionopd", router="all"),
        "flowopd": MethodConfig(method="flowopd", router="all", group=4),
        "mixed": MethodConfig(soft=True),
        "danceopd": MethodConfig(),
        # For a start that leaves a source as it is: only early states turn such a path, only late ones keep it turned.
        "danceopd-uniform": MethodConfig(query=Uniform()),
    }


def ablations(setting: str) -> Rows:
    """DanceOPD with one thing changed at a time."""
    biases: dict[str, QuerySampler] = {"mid": Beta(5, 5), "high": Beta(2, 5), "uniform": Uniform()}
    # Of the eight states of this grid: two, three and three.
    ranges = {"low": (0.0, 0.55), "mid": (0.55, 0.85), "high": (0.85, 1.0), "uniform": (0.0, 1.0)}
    return {
        **sources(setting),
        "danceopd": MethodConfig(),
        **{f"query-{name}": MethodConfig(query=bias) for name, bias in biases.items()},
        **{f"query-sigma-{name}": MethodConfig(query=BySigma(*ends)) for name, ends in ranges.items()},
        **{f"k-{k}": MethodConfig(query=Beta(5, 2, k)) for k in (2, 4, 8)},
        **{f"rollout-{steps}": MethodConfig(rollout_steps=steps) for steps in (4, 16)},
        **{f"start-{start}": MethodConfig(start=start) for start in ("fresh", MERGED)},
        "routing-all": MethodConfig(router="all"),
        "routing-soft": MethodConfig(soft=True),
        "off-policy": MethodConfig(method="offpolicy", data="teachers"),
    }


def operators(setting: str) -> Rows:
    """Guidance absorbed by the student at alpha and applied to it at beta; a full checkpoint's style absorbed."""
    if setting == "realism":
        taught = {name: MethodConfig(field=name) for name in SETTINGS[setting].teachers}
        return {BASE: MethodConfig(field=BASE), **taught, "danceopd": MethodConfig()}
    betas = (1.0, GUIDANCE, 2 * GUIDANCE)
    return {
        BARE: MethodConfig(field=BARE, betas=betas),
        **{f"alpha-{alpha:g}": MethodConfig(alpha=alpha, betas=betas) for alpha in (1.0, GUIDANCE, 2 * GUIDANCE)},
    }


def turning(setting: str) -> Rows:
    """How long a path of the start can still become a teacher's, and from where on one of a teacher stays it."""
    chosen = SETTINGS[setting]
    others = [name for name, teacher in chosen.teachers.items() if teacher.lora != chosen.start]
    late = {f"{t}-after-{k}": MethodConfig(field=t, first=START, until=k) for t in others for k in range(1, STEPS)}
    early = {f"{t}-until-{k}": MethodConfig(field=START, first=t, until=k) for t in others for k in range(1, STEPS)}
    return {START: MethodConfig(field=START), **{t: MethodConfig(field=t) for t in others}, **late, **early}


BENCHES = {
    "composition": Bench(("t2i_edit", "local_global"), True, composition),
    "ablations": Bench(("local_global",), False, ablations),
    "operators": Bench(("t2i_edit", "realism"), False, operators),
    "turning": Bench(("local_global",), False, turning),
}


def cells_of(bench: Bench, settings: Sequence[str], seeds: Sequence[int]) -> Iterator[Trial]:
    """Seed by seed: whoever stops early, or adds a seed later, has whole tables."""
    for seed in seeds:
        for setting in settings:
            for row, approach in bench.rows(setting).items():
                yield Trial(setting, row, approach, seed, bench.budget)
