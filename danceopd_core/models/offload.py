"""Keeps full-checkpoint teachers in host memory, with at most one of them on the device at a time.

A teacher is loaded when it is called and stays until another one is: at most once per update, since the route is
constant within it. Only the weights that it does not share with the base model move. Its weights in host memory never
change, so unloading costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, VelocityField


class TeacherOffloader:
    """to_device: host tensor -> the same on the device; None: an asynchronous copy to `device`."""

    def __init__(self, device: torch.device | str, to_device: Callable[[Tensor], Tensor] | None = None) -> None:
        # The host memory is pinned, so copies are asynchronous; later calls on the stream wait for them.
        self._to_device = to_device or (lambda tensor: tensor.to(device, non_blocking=True))
        self._shared: dict[nn.Module, set[int]] = {}
        self._resident: nn.Module | None = None
        self._host_data: list[tuple[Tensor, Tensor]] = []  # (tensor of the resident teacher, its data in host memory)

    def offload(self, teacher: nn.Module, network: nn.Module) -> None:
        """Moves the weights that the teacher does not share with `network` to host memory. Inject adapters later."""
        self._shared[teacher] = {tensor.data_ptr() for tensor in _tensors(network)}
        for tensor in self._unshared(teacher):
            tensor.data = tensor.data.cpu().pin_memory() if tensor.is_cuda else tensor.data.cpu()

    def field(self, teacher: nn.Module, field: VelocityField) -> VelocityField:
        """`field`, whose network is the teacher, with the teacher loaded first."""

        def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            self._load(teacher)
            return field(x, sigma, cond)

        return velocity

    def _load(self, teacher: nn.Module) -> None:
        if self._resident is teacher:
            return
        for tensor, data in self._host_data:
            tensor.data = data
        self._resident, self._host_data = None, []  # frees the old one's memory before the new one needs it
        self._host_data = [(tensor, tensor.data) for tensor in self._unshared(teacher)]
        for tensor, data in self._host_data:
            tensor.data = self._to_device(data)
        self._resident = teacher

    def _unshared(self, teacher: nn.Module) -> Iterator[Tensor]:
        return (tensor for tensor in _tensors(teacher) if tensor.data_ptr() not in self._shared[teacher])


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
