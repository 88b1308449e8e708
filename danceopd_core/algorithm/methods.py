"""The table of distillation methods, and the one loop over queried states that runs each of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ..lookup import lookup
from .fields import VelocityField
from .flow import normal
from .losses import ClippedPolicy, Objective, OdeKl, Prediction, velocity_mse
from .query import Beta, QuerySampler, every
from .rollout import Rollout, Sde, Start, ode, straight


@dataclass(frozen=True)
class Method:
    """A distillation method: the values that parametrise `state_losses`.

    over_states: whether the losses of a path's K states are averaged or summed. group: how many paths each
    sample starts, every one from a noise of its own. needs_clean: whether a start needs its target's latents.
    takes_query: whether a recipe's query replaces the row's own.
    """

    states: Rollout
    query: QuerySampler
    objective: Objective
    over_states: Literal["mean", "sum"] = "mean"
    group: int = 1
    needs_clean: bool = False
    takes_query: bool = False

    @property
    def knobs(self) -> tuple[str, ...]:
        """The settings of a recipe that belong to the objective, names of `KNOBS`."""
        return KNOBS.get(type(self.objective), ())

    def __post_init__(self) -> None:
        if self.group < 1:
            raise ValueError(f"a group of {self.group} paths: give 1 or more")
        if isinstance(self.objective, ClippedPolicy) and self.states != Sde(self.objective.eta):
            raise ValueError(
                f"{self.objective} computes likelihoods under {Sde(self.objective.eta)}, but the states come from "
                f"{self.states}: give both the same eta"
            )


KNOBS: dict[type, tuple[str, ...]] = {ClippedPolicy: ("eta", "group", "anchor"), OdeKl: ("ode_kl_weight",)}
"""The settings of a recipe that only methods with this objective use."""

METHODS = {
    "danceopd": Method(ode, Beta(5, 2), velocity_mse, takes_query=True),
    "diffusionopd": Method(ode, every, OdeKl(), over_states="sum"),
    "flowopd": Method(Sde(0.7), every, ClippedPolicy(0.7), group=16),
    "offpolicy": Method(straight, Beta(5, 2), velocity_mse, needs_clean=True, takes_query=True),
}


def method(name: str, **overrides: Any) -> Method:
    """A row of METHODS with some of its fields replaced; InputError for an unknown name."""
    return replace(lookup(METHODS, name, "method"), **overrides)


@dataclass(frozen=True, eq=False)
class StateLoss:
    """One queried state of a batch: its term of the loss, its position on the path, and the velocity error there.

    loss: scalar with gradient, scaled so that the terms of a start sum to its loss. index, sigma: (B,), step and
    noise level. error: (B,), relative velocity error |v - v_teacher| / |v_teacher|.
    """

    loss: Tensor
    index: Tensor
    sigma: Tensor
    error: Tensor

    def detached(self) -> StateLoss:
        """Without the graph of the loss."""
        return replace(self, loss=self.loss.detach())


def state_losses(
    method: Method,
    student: VelocityField,
    teacher: VelocityField,
    start: Start,
    sigmas: Tensor,
    generator: torch.Generator,
    anchor: VelocityField | None = None,
    part: range | None = None,
) -> Iterator[StateLoss]:
    """Rolls the student out, evaluates teacher and student at the queried states, and yields the loss state by state.

    Call backward on each term before taking the next, so that only one graph is alive at a time. The teacher is
    evaluated first: fields that share one network can then switch adapters without touching the student's graph.
    part: the rows of the start that are rolled out; they are drawn as in the whole start. None: all.
    """
    cond = start.cond if part is None else start.cond.select(part)
    for path in range(method.group):
        begin = start if path == 0 else start._replace(noise=normal(start.noise, generator))
        indices = method.query(sigmas, len(start.cond), generator)
        if part is not None:
            begin, indices = begin.rows(part), indices[part.start : part.stop]
        terms = indices.shape[1] if method.over_states == "mean" else 1
        for state in method.states(student, begin, sigmas, indices, generator):
            with torch.no_grad():
                v_teacher = teacher(state.x, state.sigma, cond)
                v_anchor = None if anchor is None else anchor(state.x, state.sigma, cond)
            v = student(state.x, state.sigma, cond)
            losses = method.objective(Prediction(v, v_teacher, state, len(sigmas) - 1, v_anchor))
            loss = losses.mean() / (terms * method.group)
            yield StateLoss(loss, state.index, state.sigma, _relative_error(v.detach(), v_teacher))


def _relative_error(v: Tensor, v_teacher: Tensor) -> Tensor:
    return (v - v_teacher).flatten(1).norm(dim=1) / v_teacher.flatten(1).norm(dim=1)
