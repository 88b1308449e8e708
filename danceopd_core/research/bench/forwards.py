"""Forwards of the transformer, in samples: counted during a run, and expected of a method. A backward counts as two."""

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


class ForwardCounter:
    """Counts the samples through the fields that it wraps; with gradients enabled, a backward is counted too."""

    def __init__(self) -> None:
        self.count = 0

    def wrap(self, field: VelocityField) -> VelocityField:
        def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            self.count += len(x) * (STUDENT_COST if torch.is_grad_enabled() else 1)
            return field(x, sigma, cond)

        return velocity


class CountedBackbone:
    """A backbone with a counted velocity; every other attribute is the wrapped backbone's."""

    def __init__(self, backbone: Backbone, counter: ForwardCounter) -> None:
        self._backbone, self._counter = backbone, counter
        self.velocity = counter.wrap(backbone.velocity)

    def with_network(self, network: nn.Module) -> CountedBackbone:
        return CountedBackbone(self._backbone.with_network(network), self._counter)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)


def expected_forwards(method: Method, sigmas: Tensor, teacher_calls: int) -> float:
    """The mean forwards of one path: the rollout to its last queried state, then teacher and student at each of them.

    teacher_calls: 2 for a guided teacher; for a mix of teachers, the sum over them.
    """
    # Paths draw their indices independently, so the mean of a large batch is the expectation.
    indices = method.query(sigmas, 1 if method.query is every else 20_000, torch.Generator().manual_seed(0))
    if method.states is straight:
        rollout = 0.0
    else:
        rollout = indices[:, -1].double().mean().item() + isinstance(method.states, Sde)
    return rollout + indices.shape[1] * (teacher_calls + STUDENT_COST)
