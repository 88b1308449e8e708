"""Fused kernels that have no backward pass, by ComfyUI's own plain versions of them where gradients are needed.

ComfyUI steps aside for training in most models, but not in all: Anima and JoyImage always take the fused ones.
"""

from __future__ import annotations

from typing import Any

import comfy_kitchen.backends.eager as eager
from torch import Tensor
from torch._ops import OpOverloadPacket
from torch.overrides import TorchFunctionMode

LIBRARY = "torch._ops.comfy_kitchen"


class EagerKernels(TorchFunctionMode):
    """Calls of the kernel library on tensors that require gradients go to its implementation in plain torch."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, OpOverloadPacket) and func.__module__ == LIBRARY and _needs_gradients(args, kwargs):
            return vars(eager)[func.__name__](*args, **kwargs)
        return func(*args, **kwargs)


def _needs_gradients(args: Any, kwargs: Any) -> bool:
    return any(isinstance(value, Tensor) and value.requires_grad for value in (*args, *kwargs.values()))
