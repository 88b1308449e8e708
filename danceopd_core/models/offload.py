"""Keeps full-checkpoint teachers in host memory, with at most one of them on the device at a time.

A teacher is loaded when it is called and stays until another one is: at most once per update, since the route is
constant within it. Only the weights that it does not share with the base model move, as one buffer. Its weights in host
memory never change, so unloading costs nothing.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..algorithm.fields import Conditioning, VelocityField

ALIGNMENT = 512
"""Bytes to a multiple of which each tensor begins in the buffer."""


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a tensor of a teacher lies in its buffer. first: byte."""

    tensor: Tensor
    first: int

    def view(self, buffer: Tensor) -> Tensor:
        size = self.tensor.numel() * self.tensor.element_size()
        return buffer[self.first : self.first + size].view(self.tensor.dtype).view(self.tensor.shape)


@dataclass(frozen=True, eq=False)
class _Waiting:
    """A teacher in host memory."""

    buffer: Tensor
    places: tuple[_Place, ...]

    def use(self, buffer: Tensor) -> None:
        """Makes the teacher's weights those of a buffer."""
        for place in self.places:
            place.tensor.data = place.view(buffer)


class TeacherOffloader:
    """to_device: host buffer -> the same on the device; None: an asynchronous copy to `device`.

    active: whether teachers wait in host memory from the beginning; False: from `begin` on.
    """

    def __init__(
        self,
        device: torch.device | str,
        to_device: Callable[[Tensor], Tensor] | None = None,
        active: bool = True,
    ) -> None:
        # The host memory is pinned, so copies are asynchronous; later calls on the stream wait for them.
        self._to_device = to_device or (lambda tensor: tensor.to(device, non_blocking=True))
        self._pin = torch.device(device).type == "cuda"
        self._shared: dict[nn.Module, set[int]] = {}
        self._waiting: dict[nn.Module, _Waiting] = {}
        self._resident: nn.Module | None = None
        self.active = active

    @property
    def teachers(self) -> int:
        return len(self._shared)

    def offload(self, teacher: nn.Module, network: nn.Module) -> None:
        """Moves the weights that the teacher does not share with `network` to host memory. Inject adapters later."""
        self._shared[teacher] = {tensor.data_ptr() for tensor in _tensors(network)}
        if self.active:
            self._move(teacher)

    def begin(self) -> None:
        """Moves all teachers to host memory from now on."""
        self.active = True
        for teacher in self._shared:
            if teacher not in self._waiting:
                self._move(teacher)

    def field(self, teacher: nn.Module, field: VelocityField) -> VelocityField:
        """`field`, whose network is the teacher, with the teacher loaded first."""

        def velocity(x: Tensor, sigma: Tensor, cond: Conditioning, /) -> Tensor:
            if self.active:
                self._load(teacher)
            return field(x, sigma, cond)

        return velocity

    def _move(self, teacher: nn.Module) -> None:
        own = [tensor for tensor in _tensors(teacher) if tensor.data_ptr() not in self._shared[teacher]]
        places, end = [], 0
        for tensor in own:
            places.append(_Place(tensor, end))
            end += -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT
        waiting = _Waiting(_pinned(end) if self._pin else torch.empty(end, dtype=torch.uint8), tuple(places))
        for place in places:
            view = place.view(waiting.buffer)
            view.copy_(place.tensor.data)
            place.tensor.data = view  # tensor by tensor, so that the device never holds more than before
        self._waiting[teacher] = waiting

    def _load(self, teacher: nn.Module) -> None:
        if self._resident is teacher:
            return
        if self._resident is not None:  # frees its memory before the new one needs it
            old, self._resident = self._waiting[self._resident], None
            old.use(old.buffer)
        new = self._waiting[teacher]
        new.use(self._to_device(new.buffer))
        self._resident = teacher


def _pinned(size: int) -> Tensor:
    """A buffer of pinned host memory. torch's own pinned memory comes in powers of two, so 11.5 GiB would take 16."""
    buffer = torch.empty(size, dtype=torch.uint8)
    runtime = torch.cuda.cudart()
    if size and int(runtime.cudaHostRegister(buffer.data_ptr(), size, 0)) == 0:
        weakref.finalize(buffer, runtime.cudaHostUnregister, buffer.data_ptr())
    return buffer


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()
