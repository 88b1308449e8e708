"""Keeps processes in step that share one sharded network: each of its calls needs all of them.

How often a path asks the network depends on its query, which every process draws for itself. So before every call the
processes say whether they have one, and those that have none left repeat their last one until nobody has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from .fields import Conditioning, VelocityField
from .methods import Method
from .rollout import Rollout, Start, State

T = TypeVar("T")


class InStep:
    """most: the largest of the processes' numbers, which all of them ask for together."""

    def __init__(self, network: nn.Module, most: Callable[[int], int]) -> None:
        self._network, self._most = network, most
        self._silent = False
        self._last: tuple[Any, Any] = ((), {})
        # Before all other hooks: those of the sharding gather weights, for which the others have to be there.
        network.register_forward_pre_hook(self._announce, prepend=True, with_kwargs=True)

    def method(self, method: Method) -> Method:
        """The same method, whose paths end together in all processes."""
        return replace(method, states=_Paths(method.states, self))

    def student(self, field: VelocityField) -> VelocityField:
        """The student's field, which in all processes calls the network as often where it has gradients."""
        together = self.teacher(field)

        def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            return (together if torch.is_grad_enabled() else field)(x, sigma, cond)

        return velocity

    def teacher(self, field: VelocityField) -> VelocityField:
        """A field that in all processes calls the network as often."""

        def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            v = field(x, sigma, cond)
            (args, kwargs), self._last = self._last, ((), {})
            for answer in self.until_all_end(lambda: self._network(*args, **kwargs)):
                v = v + 0 * _total(answer)  # its backward pass needs all processes too
            return v

        return velocity

    def until_all_end(self, call: Callable[[], T]) -> Iterator[T]:
        """What `call`, of the network once, gives for every call that another process still has."""
        while self._most(0):
            self._silent = True
            try:
                answer = call()
            finally:
                self._silent = False
            yield answer

    def _announce(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not self._silent:
            self._most(1)
            self._last = args, kwargs


@dataclass(frozen=True)
class _Paths:
    """A rollout of which all processes take the last step together, before a queried state is looked at."""

    states: Rollout
    in_step: InStep

    def __call__(
        self, field: VelocityField, start: Start, sigmas: Tensor, indices: Tensor, generator: torch.Generator | None
    ) -> Iterator[State]:
        found = list(self.states(field, start, sigmas, indices, generator))
        first = start.noise[:1], sigmas[:1].to(start.noise), start.cond.select([0])
        with torch.no_grad():
            for _ in self.in_step.until_all_end(lambda: field(*first)):
                pass
        yield from found

    def __eq__(self, other: object) -> bool:
        return self.states == other

    def __hash__(self) -> int:
        return hash(self.states)


def _total(answer: Any) -> Tensor:
    """The sum of the numbers in what a network gives: a tensor, or lists of them."""
    if isinstance(answer, Tensor):
        return answer.float().sum()
    parts = answer.values() if isinstance(answer, dict) else answer
    return torch.stack([_total(part) for part in parts if part is not None]).sum()
