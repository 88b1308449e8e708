"""A forward pass that was written for inference, made one that has right gradients.

Networks overwrite activations that autograd has saved: what is overwritten is copied first. Operations that have no
backward pass are replaced by others that do: fused kernels, where ComfyUI does not step aside for training by itself
(Anima and JoyImage always take them), and operations that write into `out`, as ComfyUI's attention in chunks has, which
it takes when memory is low. Attention is never cuDNN's, which ComfyUI asks for by name, in some releases on Windows
alone: see `sound_attention`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import ref

import comfy_kitchen.backends.eager as eager
import torch
from torch import Tensor, nn
from torch._ops import OpOverloadPacket
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from ...danceopd_core.algorithm.attention import sound_attention

LIBRARY = "torch._ops.comfy_kitchen"
"""Of the fused kernels."""


class Saved:
    """A tensor that autograd needs in the backward pass."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class SavedTensors(TorchFunctionMode):
    """Copies the saved tensors that share memory with the target of an in-place operation, before it runs; and calls
    what has no backward pass by what has one.

    torch's own `allow_mutation_on_saved_tensors` does the first, but the backward pass must run inside it, and it costs
    a call into Python for every kernel.
    """

    def __init__(self) -> None:
        super().__init__()
        self._saved: dict[int, list[ref[Saved]]] = {}

    def pack(self, tensor: Tensor) -> Saved:
        """What autograd keeps in the place of a tensor."""
        plain = type(tensor) is Tensor
        # By its mark, as isinstance with nn.Parameter takes longer here than many a kernel.
        if not plain and (type(tensor) is nn.Parameter or getattr(tensor, "_is_param", False)):
            return Saved(tensor)
        # Detached: an output kept by its own node would never be freed.
        saved = Saved(tensor.detach())
        if plain:
            self._saved.setdefault(_memory(tensor), []).append(ref(saved))
        return saved

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = _kind(func)
        if not kwargs and not call.in_place and call.eager is None and not call.attention:  # as nearly all are
            return func(*args)
        kwargs = kwargs or {}
        if call.attention:
            with sound_attention():
                return func(*args, **kwargs)
        if call.eager is not None and _needs_gradients(args, kwargs):
            return call.eager(*args, **kwargs)
        out = kwargs.get("out")
        overwritten = [*(args[:1] if call.in_place or kwargs.get("inplace") is True else ()), out]
        for target in overwritten:
            if type(target) is Tensor:
                self._copy_saved(target)
                args = _apart(args, target)
        if type(out) is Tensor and torch.is_grad_enabled():  # torch differentiates no call that is told where to write
            return out.copy_(func(*args, **{name: value for name, value in kwargs.items() if name != "out"}))
        return func(*args, **kwargs)

    def _copy_saved(self, target: Tensor) -> None:
        copies: dict[Any, Tensor] = {}
        for kept in self._saved.pop(_memory(target), ()):
            if (saved := kept()) is None:
                continue
            view = saved.tensor
            key = (view.data_ptr(), view.shape, view.stride(), view.dtype)
            if key not in copies:
                copies[key] = view.clone()
            saved.tensor = copies[key]


class Kind(NamedTuple):
    """in_place: whether it overwrites its first operand. eager: the kernel in plain torch, for a fused one:
    those that pack activations in 8 bits have none; ComfyUI's own layers give them their backward pass."""

    in_place: bool
    eager: Any
    attention: bool


@lru_cache(4096)
def _kind(func: Any) -> Kind:
    name = func.__name__
    fused = isinstance(func, OpOverloadPacket) and func.__module__ == LIBRARY
    in_place = (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"
    attention = func is nn.functional.scaled_dot_product_attention
    return Kind(in_place, vars(eager).get(name) if fused else None, attention)


def _needs_gradients(args: Any, kwargs: Any) -> bool:
    return any(isinstance(value, Tensor) and value.requires_grad for value in (*args, *kwargs.values()))


def unpack(saved: Saved) -> Tensor:
    """What autograd reads in the backward pass."""
    return saved.tensor


@contextmanager
def differentiable() -> Iterator[SavedTensors]:
    """Inside, a forward pass has right gradients; its backward pass is right wherever it runs."""
    saved = SavedTensors()
    with saved_tensors_hooks(saved.pack, unpack), saved:
        yield saved


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _apart(args: Any, target: Tensor) -> tuple[Any, ...]:
    """Copies of further operands in the memory that a call overwrites: `x.addcmul_(x, y)` saves x only after that."""
    shared = [type(part) is Tensor and _memory(part) == _memory(target) for part in args[1:]]
    return (*args[:1], *(part.clone() if same else part for part, same in zip(args[1:], shared, strict=True)))
