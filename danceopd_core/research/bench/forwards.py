"""Forwards of the transformer, in samples, counted during a run. A backward counts as two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...algorithm.expected_cost import STUDENT_COST
from ...algorithm.fields import Conditioning, VelocityField
from ...models.backbone import Backbone


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
