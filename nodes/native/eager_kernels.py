"""Operations that have no backward pass, by others that do, where gradients are needed.

Fused kernels: ComfyUI steps aside for training in most models, but not in all: Anima and JoyImage always take the fused
ones. Operations that write into `out`: ComfyUI's attention in chunks, which it takes when memory is low, has one.
"""

from __future__ import annotations

from typing import Any

import comfy_kitchen.backends.eager as eager
import torch
from torch import Tensor
from torch._ops import OpOverloadPacket
from torch.overrides import TorchFunctionMode

LIBRARY = "torch._ops.comfy_kitchen"


class EagerKernels(TorchFunctionMode):
    """Calls of the kernel library on tensors that require gradients go to its implementation in plain torch; results go
    into `out` by a copy, which autograd follows."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, OpOverloadPacket) and func.__module__ == LIBRARY and _needs_gradients(args, kwargs):
            return vars(eager)[func.__name__](*args, **kwargs)
        out = kwargs.get("out")
        if isinstance(out, Tensor) and torch.is_grad_enabled() and _needs_gradients(args, kwargs):
            return out.copy_(func(*args, **{name: value for name, value in kwargs.items() if name != "out"}))
        return func(*args, **kwargs)


def _needs_gradients(args: Any, kwargs: Any) -> bool:
    return any(isinstance(value, Tensor) and value.requires_grad for value in (*args, *kwargs.values()))
