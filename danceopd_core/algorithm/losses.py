"""Objectives: the loss of the student's velocity at a state, given the teacher's velocity there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .flow import Transition, mean_per_sample, sde_transition
from .rollout import State


class Prediction(NamedTuple):
    """The velocities (B, ...) predicted at a state; only the student's carries a gradient."""

    student: Tensor
    teacher: Tensor
    state: State
    steps: int
    """N, the number of steps of the whole path."""
    anchor: Tensor | None = None
    """Velocity of a third field towards which the student is regularised, for objectives with such a term."""


Objective = Callable[[Prediction], Tensor]
"""Prediction -> loss per sample, (B,)."""


def velocity_mse(p: Prediction) -> Tensor:
    """The mean squared velocity error (DanceOPD)."""
    return mean_per_sample((p.student - p.teacher).square())


@dataclass(frozen=True)
class OdeKl:
    """dt^2 / 2 times the squared velocity error (DiffusionOPD, eq. 12), to be summed over a path's states.

    weight: "uniform" uses dt = 1 / N, as the official code does. Both agree on a uniform grid; on a shifted one
    the true dt^2 varies many-fold.
    """

    weight: Literal["dt2", "uniform"] = "dt2"

    def __call__(self, p: Prediction) -> Tensor:
        dt = p.state.sigma_next - p.state.sigma if self.weight == "dt2" else 1 / p.steps
        return dt**2 / 2 * velocity_mse(p)


@dataclass(frozen=True)
class ClippedPolicy:
    """Flow-OPD (arXiv 2605.08063): PPO's clipped objective with the negative KL to the teacher as the advantage.

    Needs the states of an `Sde` rollout with the same eta. As in Flow-OPD's own code, the gradient also flows
    through the KL, which is the only learning signal: the KL depends on the state alone, so as a detached reward it
    carries no information about the sampled step, E[KL grad log p] = 0. DanceOPD's code detaches it
    (`detach_reward`) and is left with that noise.

    clip: range around 1 in which the probability ratio has a gradient. advantage_clip: upper bound of the KL.
    anchor: weight of the KL to the anchor's velocity (Flow-OPD's MAR, 0.04 in its paper).
    """

    eta: float = 0.7
    clip: float = 1e-4
    advantage_clip: float = 5.0
    anchor: float = 0.0
    detach_reward: bool = False

    def __post_init__(self) -> None:
        if self.eta <= 0:
            raise ValueError(f"ClippedPolicy needs a stochastic path, so eta > 0, not {self.eta:g}")

    def __call__(self, p: Prediction) -> Tensor:
        if p.state.v is None or p.state.x_next is None:
            raise ValueError("ClippedPolicy needs the states of a stochastic rollout: roll out with Sde")
        new = self._transition(p.student, p.state)
        old = self._transition(p.state.v, p.state)
        ratio = (new.log_prob(p.state.x_next) - old.log_prob(p.state.x_next)).exp()

        kl = _kl(new, self._transition(p.teacher, p.state), p.state)
        advantage = -(kl.detach() if self.detach_reward else kl).clamp(max=self.advantage_clip)
        loss = -torch.minimum(advantage * ratio, advantage * ratio.clamp(1 - self.clip, 1 + self.clip))

        if self.anchor:
            if p.anchor is None:
                raise ValueError(f"the anchor weight is {self.anchor:g}, but no anchor field was given")
            loss = loss + self.anchor * _kl(new, self._transition(p.anchor, p.state), p.state)
        return loss

    def _transition(self, v: Tensor, state: State) -> Transition:
        return sde_transition(state.x, v, state.sigma, state.sigma_next, self.eta)


def _kl(p: Transition, q: Transition, state: State) -> Tensor:
    """The KL per dimension of two transitions with equal std, times |dsigma|: both official implementations divide by
    the variance per unit of sigma, not by that of the step."""
    kl = mean_per_sample((p.mean - q.mean).square() / (2 * p.std.square()))
    return kl * (state.sigma - state.sigma_next)
