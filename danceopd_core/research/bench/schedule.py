"""The updates at which a trial's student is scored, the length of its run, and its estimated cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ...algorithm.expected_cost import expected_forwards
from ...algorithm.methods import Method
from ...recipe.schema import Teacher
from .trials import BASE, REGIMES, STEPS, TASKS, BenchPlan, MethodConfig, Trial, teachers_of

UPDATES, FORWARDS = "updates", "forwards"
"""The two comparisons of students: after as many updates, and after as many forwards, as DanceOPD's run."""
CURVE = (0.25, 0.5)
"""The fractions of a run after which its student is scored for the curves."""

Sigmas = Callable[[int], Tensor]  # steps -> (steps + 1,)


class Paths(NamedTuple):
    """Of one update: prompts per route, and paths over all routes."""

    prompts: int
    total: int


def paths(trial: Trial, plan: BenchPlan) -> Paths:
    """The plan's batch divided over the routes of an update and the paths of a prompt, so that every method has the
    same number of paths per update."""
    routes = len(TASKS[trial.task].routes) if trial.config.router == "all" else 1
    prompts = max(1, plan.batch // (routes * trial.config.group))
    return Paths(prompts, prompts * routes * trial.config.group)


def path_forwards(trial: Trial, sigmas: Sigmas) -> dict[str, float]:
    """Route -> expected forwards of one path."""
    config, teachers = trial.config, teachers_of(trial)
    calls = {name: 1 + (teachers[name].guidance != 1) for name in TASKS[trial.task].routes}
    if config.method == "joint":
        calls = dict.fromkeys(calls, 0)
    elif config.mix_teachers:
        calls = dict.fromkeys(calls, sum(calls.values()))
    grid = tuple(sigmas(config.rollout_steps).tolist())
    return {name: _expected(config.core_method(), grid, count) for name, count in calls.items()}


def target_forwards(trial: Trial, plan: BenchPlan) -> dict[str, float]:
    """Route -> forwards with which its teacher generates the targets."""
    teachers = teachers_of(trial)
    forwards = plan.prompts * STEPS if REGIMES[trial.config.regime].teacher_generated else 0
    return {name: forwards * (1.0 + (teachers[name].guidance != 1)) for name in TASKS[trial.task].routes}


def milestones(trial: Trial, plan: BenchPlan, sigmas: Sigmas) -> dict[int, tuple[str, ...]]:
    """The updates after which the student is scored, with the comparisons that use them; none for the curves only."""
    ends = {UPDATES: plan.steps} if trial.equal_updates else {}
    if trial.equal_forwards:
        budget = plan.steps * _update_forwards(Trial(trial.task, "", MethodConfig(), 0), plan, sigmas)
        remaining = budget - sum(target_forwards(trial, plan).values())
        ends[FORWARDS] = max(1, round(remaining / _update_forwards(trial, plan, sigmas)))
    comparisons: dict[int, tuple[str, ...]] = {0: ()}
    comparisons |= {max(1, round(fraction * end)): () for end in ends.values() for fraction in CURVE}
    for name, end in ends.items():
        comparisons[end] = (*comparisons.get(end, ()), name)
    return dict(sorted(comparisons.items()))


def compared(trial: Trial) -> tuple[str, ...]:
    """The comparisons that the trial enters."""
    return (*((UPDATES,) if trial.equal_updates else ()), *((FORWARDS,) if trial.equal_forwards else ()))


def last_update(trial: Trial, plan: BenchPlan, sigmas: Sigmas) -> int:
    return max(milestones(trial, plan, sigmas))


def _update_forwards(trial: Trial, plan: BenchPlan, sigmas: Sigmas) -> float:
    by_route = path_forwards(trial, sigmas)
    return paths(trial, plan).total * sum(by_route.values()) / len(by_route)


@cache
def _expected(method: Method, grid: tuple[float, ...], teacher_calls: int) -> float:
    return expected_forwards(method, torch.tensor(grid), teacher_calls)


def planned_seconds(trial: Trial, plan: BenchPlan, sigmas: Sigmas, speed: dict[str, float]) -> float:
    """speed: category -> seconds of one sample's forward."""
    task, config = TASKS[trial.task], trial.config

    def route_speed(name: str) -> float:
        categories = task.routes[name]
        return sum(speed[category] for category in categories) / len(categories)

    scoring = STEPS * sum(speed[category] for category in task.scored)  # of one item of every category
    guided_scorings = sum(1 + (beta != 1) for beta in config.betas[1:])  # after the last update only
    if not config.trains:
        guided = config.field == BASE or teachers_of(trial).get(config.field, Teacher()).guidance != 1
        return scoring * plan.items * (1 + guided + guided_scorings)
    forwards = path_forwards(trial, sigmas)
    update = paths(trial, plan).total * sum(forwards[name] * route_speed(name) for name in forwards) / len(forwards)
    targets = sum(count * route_speed(name) for name, count in target_forwards(trial, plan).items())
    stops = milestones(trial, plan, sigmas)
    items = sum(plan.items if comparisons else plan.curve_items for comparisons in stops.values())
    return max(stops) * update + targets + scoring * (items + guided_scorings * plan.items)
