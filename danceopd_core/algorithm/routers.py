"""Routers: which routes (a teacher with its bucket of prompts) an update trains on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from ..lookup import lookup
from .balance import Balanced

Router = Callable[[int, torch.Generator], tuple[int, ...]]
"""(update index, generator) -> indices of the routes of that update; their losses are averaged."""


def shares(weights: Sequence[float]) -> tuple[float, ...]:
    """Weights normalised to sum to 1; InputError unless all are finite and non-negative and one is positive."""
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights) or not sum(weights) > 0:
        raise InputError(f"route weights {list(weights)}: each must be 0 or more, and at least one above 0")
    return tuple(weight / sum(weights) for weight in weights)


@dataclass(frozen=True)
class WeightedRandom:
    """One route per update, sampled in proportion to its weight (DanceOPD's hard routing)."""

    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        shares(self.weights)

    def __call__(self, update: int, generator: torch.Generator) -> tuple[int, ...]:
        probabilities = torch.tensor(shares(self.weights), dtype=torch.float64, device=generator.device)
        return (int(torch.multinomial(probabilities, 1, generator=generator)),)


@dataclass(frozen=True)
class RoundRobin:
    """One route per update, cyclically. routes: their numbers; empty: all `n`."""

    n: int
    routes: tuple[int, ...] = ()

    def __call__(self, update: int, generator: torch.Generator) -> tuple[int, ...]:
        own = self.routes or range(self.n)
        return (own[update % len(own)],)


@dataclass(frozen=True)
class AllOf:
    """Every route in every update (DiffusionOPD and Flow-OPD in the paper's comparison, G = M). routes: their numbers;
    empty: all `n`."""

    n: int
    routes: tuple[int, ...] = ()

    def __call__(self, update: int, generator: torch.Generator) -> tuple[int, ...]:
        return self.routes or tuple(range(self.n))


ROUTERS: dict[str, Callable[[Sequence[float]], Router]] = {
    "weighted": lambda weights: WeightedRandom(tuple(weights)),
    "round_robin": lambda weights: RoundRobin(len(weights), trained(weights)),
    "all": lambda weights: AllOf(len(weights), trained(weights)),
    "balanced": lambda weights: _balanced(tuple(weights)),
}


def trained(weights: Sequence[float]) -> tuple[int, ...]:
    """The numbers of the routes that are trained; those with weight 0 are only watched."""
    return tuple(number for number, weight in enumerate(weights) if weight > 0)


def router(name: str, weights: Sequence[float]) -> Router:
    """The router of that name over routes with these weights: none chooses a route with weight 0, and "weighted" and
    "balanced" choose the others by them."""
    return lookup(ROUTERS, name, "router")(weights)


def _balanced(weights: tuple[float, ...]) -> Balanced:
    shares(weights)
    return Balanced(weights)
