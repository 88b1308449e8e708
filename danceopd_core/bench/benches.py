"""The benches, each as the cells that it compares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..query import Beta, BySigma, QuerySampler, Uniform
from ..shapes import GUIDANCE
from .cells import BARE, BASE, MERGED, SETTINGS, START, STEPS, Approach, Cell

Rows = dict[str, Approach]


class Bench(NamedTuple):
    """settings: those that it is run in unless others are asked for. budget: rows are compared at equal forwards too.
    rows: of a setting, by name."""

    settings: tuple[str, ...]
    budget: bool
    rows: Callable[[str], Rows]


def sources(setting: str) -> Rows:
    """What there is to compose: the guided base and the teachers."""
    found = {f"teacher-{name}": Approach(field=name) for name in SETTINGS[setting].teachers if name != BASE}
    return {BASE: Approach(field=BASE), **found}


def is_source(row: str) -> bool:
    return row == BASE or row.startswith("teacher-")


def composition(setting: str) -> Rows:
    """The paper's methods, with joint training in every data regime."""
    taught = SETTINGS[setting].teachers
    # What learns from no guided teacher may be guided at inference instead.
    betas = (1.0, GUIDANCE) if any(teacher.guidance != 1 for teacher in taught.values()) else (1.0,)
    joint = Approach(method="joint", betas=betas)
    return {
        **sources(setting),
        **({"merge": Approach(field=MERGED, betas=betas)} if any(t.lora for t in taught.values()) else {}),
        "joint-few": replace(joint, data="few"),
        "joint-faulty": replace(joint, data="faulty"),
        "joint-unlimited": replace(joint, data="unlimited"),
        "offpolicy": Approach(method="offpolicy", data="teachers"),
        "diffusionopd": Approach(method="diffusionopd", router="all"),
        "flowopd": Approach(method="flowopd", router="all", group=4),
        "mixed": Approach(soft=True),
        "danceopd": Approach(),
        # For a start that leaves a source as it is: only early states turn such a path, only late ones keep it turned.
        "danceopd-uniform": Approach(query=Uniform()),
    }


def ablations(setting: str) -> Rows:
    """DanceOPD with one thing changed at a time."""
    biases: dict[str, QuerySampler] = {"mid": Beta(5, 5), "high": Beta(2, 5), "uniform": Uniform()}
    # Of the eight states of this grid: two, three and three.
    ranges = {"low": (0.0, 0.55), "mid": (0.55, 0.85), "high": (0.85, 1.0), "uniform": (0.0, 1.0)}
    return {
        **sources(setting),
        "danceopd": Approach(),
        **{f"query-{name}": Approach(query=bias) for name, bias in biases.items()},
        **{f"query-sigma-{name}": Approach(query=BySigma(*ends)) for name, ends in ranges.items()},
        **{f"k-{k}": Approach(query=Beta(5, 2, k)) for k in (2, 4, 8)},
        **{f"rollout-{steps}": Approach(rollout_steps=steps) for steps in (4, 16)},
        **{f"start-{start}": Approach(start=start) for start in ("fresh", MERGED)},
        "routing-all": Approach(router="all"),
        "routing-soft": Approach(soft=True),
        "off-policy": Approach(method="offpolicy", data="teachers"),
    }


def operators(setting: str) -> Rows:
    """Guidance absorbed by the student at alpha and applied to it at beta; a full checkpoint's style absorbed."""
    if setting == "realism":
        taught = {name: Approach(field=name) for name in SETTINGS[setting].teachers}
        return {BASE: Approach(field=BASE), **taught, "danceopd": Approach()}
    betas = (1.0, GUIDANCE, 2 * GUIDANCE)
    return {
        BARE: Approach(field=BARE, betas=betas),
        **{f"alpha-{alpha:g}": Approach(alpha=alpha, betas=betas) for alpha in (1.0, GUIDANCE, 2 * GUIDANCE)},
    }


def turning(setting: str) -> Rows:
    """How long a path of the start can still become a teacher's, and from where on one of a teacher stays it."""
    chosen = SETTINGS[setting]
    others = [name for name, teacher in chosen.teachers.items() if teacher.lora != chosen.start]
    late = {f"{t}-after-{k}": Approach(field=t, first=START, until=k) for t in others for k in range(1, STEPS)}
    early = {f"{t}-until-{k}": Approach(field=START, first=t, until=k) for t in others for k in range(1, STEPS)}
    return {START: Approach(field=START), **{t: Approach(field=t) for t in others}, **late, **early}


BENCHES = {
    "composition": Bench(("t2i_edit", "local_global"), True, composition),
    "ablations": Bench(("local_global",), False, ablations),
    "operators": Bench(("t2i_edit", "realism"), False, operators),
    "turning": Bench(("local_global",), False, turning),
}


def cells_of(bench: Bench, settings: Sequence[str], seeds: Sequence[int]) -> Iterator[Cell]:
    """Seed by seed: whoever stops early, or adds a seed later, has whole tables."""
    for seed in seeds:
        for setting in settings:
            for row, approach in bench.rows(setting).items():
                yield Cell(setting, row, approach, seed, bench.budget)
