"""Forwards of the transformer: counted in a run, and expected of a method. A backward counts as two more."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...algorithm.fields import Conditioning, VelocityField
from ...algorithm.methods import Method
from ...algorithm.query import every
from ...algorithm.rollout import Sde, straight
from ...models.backbone import Backbone

STUDENT_COST = 3  # a forward and a backward


class Tally:
    """Counts samples through the fields that are `over`; where gradients are on, a backward follows."""

    def __init__(self) -> None:
        self.count = 0

    def over(self, field: VelocityField) -> VelocityField:
        def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            self.count += len(x) * (STUDENT_COST if torch.is_grad_enabled() else 1)
            return field(x, sigma, cond)

        return velocity


class CountedBackbone:
    """A backbone whose velocity is counted; everything else is its own."""

    def __init__(self, backbone: Backbone, tally: Tally) -> None:
        self._backbone, self._tally = backbone, tally
        self.velocity = tally.over(backbone.velocity)

    def with_network(self, network: nn.Module) -> CountedBackbone:
        return CountedBackbone(self._backbone.with_network(network), self._tally)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)


def expected_forwards(method: Method, sigmas: Tensor, teacher_calls: int) -> float:
    """Of one path, as the README counts: the rollout up to the last queried state, then teacher and student.

    teacher_calls: 2 for a guided teacher, the sum over all for a mix of several.
    """
    # Every path's indices are drawn alone, so a large sample gives their mean.
    indices = method.query(sigmas, 1 if method.query is every else 20_000, torch.Generator().manual_seed(0))
    if method.states is straight:
        rollout = 0.0
    else:
        rollout = indices[:, -1].double().mean().item() + isinstance(method.states, Sde)
    return rollout + indices.shape[1] * (teacher_calls + STUDENT_COST)
