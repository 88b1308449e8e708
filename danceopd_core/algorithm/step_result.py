"""What one update tells of itself, brought from the device in one transfer: each one that waits keeps it idle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from .methods import StateLoss


@dataclass(frozen=True)
class StepResult:
    """One update. losses, errors: by route; error is |v - v_teacher| / |v_teacher| at the queried states.
    indices, sigmas: of this process's queried states. seconds: by phase, and "total"."""

    update: int
    losses: dict[str, float]
    errors: dict[str, float]
    indices: list[int]
    sigmas: list[float]
    grad_norm: float
    lr: float
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def loss(self) -> float:
        return sum(self.losses.values()) / len(self.losses)


class Told(NamedTuple):
    """The part of a StepResult that lies on the device."""

    losses: dict[str, float]
    errors: dict[str, float]
    indices: list[int]
    sigmas: list[float]
    grad_norm: float


def told_of(terms: Mapping[str, Sequence[StateLoss]], accumulate: int, batch: int, norm: Tensor) -> Told:
    """terms: by route, those of all its micro-steps in order, each of a batch or a part of one. accumulate: the number
    of micro-steps. batch: samples of one. norm: of the gradients."""
    every = [term for of_route in terms.values() for term in of_route]
    parts = [
        torch.stack([norm, *(term.loss.detach() for term in every), *(term.error.mean() for term in every)]),
        *(term.sigma for term in every),
        *(term.index for term in every),
    ]
    numbers = iter(torch.cat(parts).tolist())
    grad_norm = next(numbers)
    loss, error = ([next(numbers) for _ in every] for _ in range(2))
    sigmas, indices = ([next(numbers) for term in every for _ in term.sigma] for _ in range(2))
    losses, errors, first = {}, {}, 0
    for name, of_route in terms.items():
        rows = slice(first, first := first + len(of_route))
        weights = [len(term.sigma) / batch for term in of_route]
        losses[name] = sum(value / accumulate * weight for value, weight in zip(loss[rows], weights, strict=True))
        errors[name] = sum(value * weight for value, weight in zip(error[rows], weights, strict=True)) / sum(weights)
    return Told(losses, errors, [int(index) for index in indices], sigmas, grad_norm)
