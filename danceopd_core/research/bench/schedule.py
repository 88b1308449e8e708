"""How long a cell trains, where its student is scored, and what that costs, from what is known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from ...algorithm.methods import Method
from ...recipe.schema import Teacher
from .cells import BASE, REGIMES, SETTINGS, STEPS, BenchPlan, MethodConfig, Trial, teachers_of
from .forwards import expected_forwards

UPDATES, FORWARDS = "updates", "forwards"
"""Marks of the states of a run that are compared: after as many updates, and after as many forwards, as DanceOPD."""
CURVE = (0.25, 0.5)

Sigmas = Callable[[int], Tensor]  # steps -> (steps + 1,)
_KNOWN: dict[tuple[Method, tuple[float, ...], int], float] = {}


class Paths(NamedTuple):
    """Of an update: prompts of a route, and paths of all its routes."""

    prompts: int
    all: int


def paths(cell: Trial, plan: BenchPlan) -> Paths:
    """The plan's batch dealt to the routes of an update and to the paths of a prompt, so that all methods see as many
    paths an update."""
    routes = len(SETTINGS[cell.setting].routes) if cell.approach.router == "all" else 1
    prompts = max(1, plan.batch // (routes * cell.approach.group))
    return Paths(prompts, prompts * routes * cell.approach.group)


def path_forwards(cell: Trial, sigmas: Sigmas) -> dict[str, float]:
    """Expected forwards of a path, by route."""
    how, teachers = cell.approach, teachers_of(cell)
    calls = {name: 1 + (teachers[name].guidance != 1) for name in SETTINGS[cell.setting].routes}
    if how.method == "joint":
        calls = dict.fromkeys(calls, 0)
    elif how.soft:
        calls = dict.fromkeys(calls, sum(calls.values()))
    grid = sigmas(how.rollout_steps)
    return {name: _expected(how.core_method(), grid, count) for name, count in calls.items()}


def drawing_forwards(cell: Trial, plan: BenchPlan) -> dict[str, float]:
    """Forwards with which the teachers draw their targets, by route."""
    teachers = teachers_of(cell)
    each = plan.prompts * STEPS if REGIMES[cell.approach.data].drawn else 0
    return {name: each * (1.0 + (teachers[name].guidance != 1)) for name in SETTINGS[cell.setting].routes}


def milestones(cell: Trial, plan: BenchPlan, sigmas: Sigmas) -> dict[int, tuple[str, ...]]:
    """The updates after which the student is scored, with their marks; none for a point of the curve."""
    ends = {UPDATES: plan.steps}
    if cell.budget:
        budget = plan.steps * _update_forwards(Trial(cell.setting, "", MethodConfig(), 0), plan, sigmas)
        left = budget - sum(drawing_forwards(cell, plan).values())
        ends[FORWARDS] = max(1, round(left / _update_forwards(cell, plan, sigmas)))
    found: dict[int, tuple[str, ...]] = {0: ()}
    found |= {max(1, round(share * end)): () for end in ends.values() for share in CURVE}
    for mark, end in ends.items():
        found[end] = (*found.get(end, ()), mark)
    return dict(sorted(found.items()))


def last_update(cell: Trial, plan: BenchPlan, sigmas: Sigmas) -> int:
    return max(milestones(cell, plan, sigmas))


def _update_forwards(cell: Trial, plan: BenchPlan, sigmas: Sigmas) -> float:
    each = path_forwards(cell, sigmas)
    return paths(cell, plan).all * sum(each.values()) / len(each)


def _expected(method: Method, grid: Tensor, calls: int) -> float:
    key = (method, tuple(grid.tolist()), calls)
    if key not in _KNOWN:
        _KNOWN[key] = expected_forwards(method, grid, calls)
    return _KNOWN[key]


def planned_seconds(cell: Trial, plan: BenchPlan, sigmas: Sigmas, pace: dict[str, float]) -> float:
    """pace: seconds of a sample's forward, by category."""
    setting, how = SETTINGS[cell.setting], cell.approach

    def route(name: str) -> float:
        categories = setting.routes[name]
        return sum(pace[category] for category in categories) / len(categories)

    look = STEPS * sum(pace[category] for category in setting.scored)
    more = sum(1 + (beta != 1) for beta in how.betas[1:])  # at the end only
    if not how.trains:
        guided = how.field == BASE or teachers_of(cell).get(how.field, Teacher()).guidance != 1
        return look * plan.each * (1 + guided + more)
    each = path_forwards(cell, sigmas)
    update = paths(cell, plan).all * sum(each[name] * route(name) for name in each) / len(each)
    drawing = sum(count * route(name) for name, count in drawing_forwards(cell, plan).items())
    points = milestones(cell, plan, sigmas)
    items = sum(plan.each if marks else plan.brief for marks in points.values())
    return max(points) * update + drawing + look * (items + more * plan.each)
