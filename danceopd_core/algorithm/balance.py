"""A router whose shares follow what the routes have still to learn: those farther from their teachers get more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

EVERY = 25
"""Updates between two measurements, each a few forwards a route."""
BOUND = 2.0
"""A route's weight is multiplied or divided by this much at most."""
SMOOTH = 0.5
"""How far a measurement moves the weights to what it says."""


@dataclass
class Balanced:
    """One route per update, at random by weight times factor. The factors follow the distances to the teachers.

    The distances as they are, not what is left of those at the start: a student often begins as one of its teachers,
    and of a start of nothing any drift would be all. weights: of the recipe, which the factors begin from. measured:
    the update at which they were last measured; -1: never.
    """

    weights: tuple[float, ...]
    factors: list[float] = field(default_factory=list)
    measured: int = -1

    def __post_init__(self) -> None:
        self.factors = self.factors or [1.0] * len(self.weights)

    def __call__(self, update: int, generator: torch.Generator) -> tuple[int, ...]:
        probabilities = torch.tensor(self.shares(), dtype=torch.float64, device=generator.device)
        return (int(torch.multinomial(probabilities, 1, generator=generator)),)

    def shares(self) -> tuple[float, ...]:
        """The probability of each route now."""
        own = [weight * factor for weight, factor in zip(self.weights, self.factors, strict=True)]
        return tuple(weight / sum(own) for weight in own)

    def is_due(self, update: int) -> bool:
        """Whether the distances are to be measured before this update."""
        return update % EVERY == 0 and self.measured < update

    def learn(self, update: int, distances: Sequence[float]) -> None:
        """Moves the factors by relative distances to the teachers, one for each route; none if one is not finite."""
        self.measured = update
        if not all(map(math.isfinite, distances)):
            return
        chosen = [distance for distance, weight in zip(distances, self.weights, strict=True) if weight]
        mean = sum(chosen) / len(chosen)
        if mean > 0:
            aims = [min(BOUND, max(1 / BOUND, distance / mean)) for distance in distances]
            self.factors = [old + SMOOTH * (aim - old) for old, aim in zip(self.factors, aims, strict=True)]

    def state_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"factors": list(self.factors), "measured": self.measured}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues with what `state_dict` gave; ValueError if that is of other routes."""
        if len(state["factors"]) != len(self.weights):
            raise ValueError("the router's state is of other routes")
        self.factors, self.measured = list(state["factors"]), state["measured"]


def most_updates(weights: Sequence[float], route: int, updates: int) -> int:
    """How many of a run's updates train a route at most, but for one run in many thousand."""
    others = sum(weight for number, weight in enumerate(weights) if number != route) / BOUND
    share = weights[route] * BOUND / (weights[route] * BOUND + others) if weights[route] else 0.0
    return min(updates, math.ceil(updates * share + 4 * math.sqrt(updates * share)))
