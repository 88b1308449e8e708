"""Routers: which routes (teachers with their prompts) an update learns from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..lookup import lookup

Router = Callable[[int, torch.Generator], tuple[int, ...]]
"""(number of the update, generator) -> the routes of that update, by index; their losses are averaged."""


def shares(weights: Sequence[float]) -> tuple[float, ...]:
    """Weights as fractions of their sum; InputError unless all are finite, none negative and one positive."""
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise InputError(f"route weights {list(weights)}: each must be 0 or more, and at least one above 0")
    return tuple(weight / sum(weights) for weight in weights)


@dataclass(frozen=True)
class WeightedRandom:
    """One route an update, drawn with probability in proportion to its weight (DanceOPD's hard routing)."""

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        shares(self.weights)

    def __call__(self, update: int, generator: torch.Generator) -> tuple[int, ...]:
        odds = torch.tensor(shares(self.weights), dtype=torch.float64, device=generator.device)
        return (int(torch.multinomial(odds, 1, generator=generator)),)


@dataclass(frozen=True)
class RoundRobin:
    """One route an update, in turn."""

    n: int

    def __call__(self, update: int, generator: torch.Generator) -> tuple[int, ...]:
        return (update % self.n,)


@dataclass(frozen=True)
class AllOf:
    """Every route in every update (DiffusionOPD and Flow-OPD in the paper's comparison, G = M)."""

    n: int

    def __call__(self, update: int, generator: torch.Generator) -> tuple[int, ...]:
        return tuple(range(self.n))


ROUTERS: dict[str, Callable[[Sequence[float]], Router]] = {
    "weighted": lambda weights: WeightedRandom(tuple(weights)),
    "round_robin": lambda weights: RoundRobin(len(weights)),
    "all": lambda weights: AllOf(len(weights)),
}


def router(name: str, weights: Sequence[float]) -> Router:
    """The router of that name over routes of these weights; only "weighted" heeds them."""
    return lookup(ROUTERS, name, "router")(weights)
