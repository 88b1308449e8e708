"""One place on the device for all full-checkpoint teachers, which take turns in it.

A teacher comes in when it is asked and stays until another one is: at most once an update, while the route is constant
within it. Only what it does not share with the base moves. Its weights in host memory never change, so leaving costs
nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, VelocityField


class TeacherOffloader:
    """bring: host tensor -> the same on the device; None: an asynchronous copy to `device`."""

    def __init__(self, device: torch.device | str, bring: Callable[[Tensor], Tensor] | None = None) -> None:
        # Asynchronous copies come out of pinned memory, and the calls that follow on the stream wait for them.
        self._bring = bring or (lambda tensor: tensor.to(device, non_blocking=True))
        self._shared: dict[nn.Module, set[int]] = {}
        self._inside: nn.Module | None = None
        self._homes: list[tuple[Tensor, Tensor]] = []  # what is inside, and its data in host memory

    def put_out(self, teacher: nn.Module, network: nn.Module) -> None:
        """Sends what the teacher does not share with `network` to host memory. Put adapters in it afterwards."""
        self._shared[teacher] = {tensor.data_ptr() for tensor in _tensors(network)}
        for tensor in self._own(teacher):
            tensor.data = tensor.data.cpu().pin_memory() if tensor.is_cuda else tensor.data.cpu()

    def field(self, teacher: nn.Module, field: VelocityField) -> VelocityField:
        """`field`, whose network the teacher is, with the teacher brought in first."""

        def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            self._admit(teacher)
            return field(x, sigma, cond)

        return velocity

    def _admit(self, teacher: nn.Module) -> None:
        if self._inside is teacher:
            return
        for tensor, home in self._homes:
            tensor.data = home
        self._inside, self._homes = None, []  # the old one's memory is free before the new one needs it
        self._homes = [(tensor, tensor.data) for tensor in self._own(teacher)]
        for tensor, home in self._homes:
            tensor.data = self._bring(home)
        self._inside = teacher

    def _own(self, teacher: nn.Module) -> Iterator[Tensor]:
        return (tensor for tensor in _tensors(teacher) if tensor.data_ptr() not in self._shared[teacher])


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
