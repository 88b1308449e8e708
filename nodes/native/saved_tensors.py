"""Networks written for inference overwrite activations that autograd has saved; what is overwritten is copied first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode


class Saved:
    """A tensor that autograd needs in the backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class SavedTensors(TorchFunctionMode):
    """Copies the saved tensors that share memory with the target of an in-place operation, before it runs.

    torch's own `allow_mutation_on_saved_tensors` does the same, but the backward pass must run inside it, and it costs
    a call into Python for every kernel.
    """

    def __init__(self) -> None:
        super().__init__()
        self._saved: dict[int, WeakSet[Saved]] = {}

    def pack(self, tensor: Tensor) -> Saved:
        """What autograd keeps in the place of a tensor."""
        if isinstance(tensor, nn.Parameter):
            return Saved(tensor)
        # Detached: an output kept by its own node would never be freed.
        saved = Saved(tensor.detach())
        if type(tensor) is Tensor:
            self._saved.setdefault(_memory(tensor), WeakSet()).add(saved)
        return saved

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for target in _overwritten(func, args, kwargs):
            copies: dict[Any, Tensor] = {}
            for saved in self._saved.pop(_memory(target), ()):
                view = saved.tensor
                key = (view.data_ptr(), view.shape, view.stride(), view.dtype)
                if key not in copies:
                    copies[key] = view.clone()
                saved.tensor = copies[key]
            args = _apart(args, target)
        out = kwargs.get("out")
        if type(out) is Tensor and torch.is_grad_enabled():  # torch differentiates no call that is told where to write
            return out.copy_(func(*args, **{name: value for name, value in kwargs.items() if name != "out"}))
        return func(*args, **kwargs)


def unpack(saved: Saved) -> Tensor:
    """What autograd reads in the backward pass."""
    return saved.tensor


@contextmanager
def overwriting_allowed() -> Iterator[SavedTensors]:
    """Inside, a forward pass may overwrite activations in place; its backward pass is right wherever it runs."""
    saved = SavedTensors()
    with saved_tensors_hooks(saved.pack, unpack), saved:
        yield saved


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _apart(args: Any, target: Tensor) -> tuple[Any, ...]:
    """Copies of further operands in the memory that a call overwrites: `x.addcmul_(x, y)` saves x only after that."""
    shared = [type(part) is Tensor and _memory(part) == _memory(target) for part in args[1:]]
    return (*args[:1], *(part.clone() if same else part for part, same in zip(args[1:], shared, strict=True)))


def _overwritten(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that a call of torch writes into."""
    name = func.__name__
    in_place = (
        (name.endswith("_") and not name.endswith("__")) or name == "__setitem__" or kwargs.get("inplace") is True
    )
    found = [*(args[:1] if in_place else ()), kwargs.get("out")]
    return [target for target in found if type(target) is torch.Tensor]
