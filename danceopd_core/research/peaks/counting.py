"""Counts floating-point operations of an update on any device, and what the host waits for on the meta device."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ...runs.budget.walk import READS, Meter

ATEN = torch.ops.aten
FORMULAS = {
    **flop_registry,
    ATEN._scaled_dot_product_flash_attention_for_cpu: flop_registry[ATEN._scaled_dot_product_flash_attention],
    ATEN._scaled_dot_product_flash_attention_for_cpu_backward: flop_registry[
        ATEN._scaled_dot_product_flash_attention_backward
    ],
}
"""torch's own; the kernels of attention on a CPU have none there."""


class Flops(TorchDispatchMode):
    """flops: of products and attention made inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.flops += flops_of(func, args, kwargs, out)
        return out


class UpdateCounts(Meter):
    """counted: host reads and copies between devices. kernels: of attention. flops: of products and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.counted: Counter[str] = Counter()
        self.kernels: Counter[str] = Counter()
        self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        first = next((one for one in args if isinstance(one, Tensor)), None)
        if first is not None and first.is_meta and func in (*READS, ATEN.equal.default, ATEN.nonzero.default):
            self.counted["read"] += 1
        if func is ATEN._to_copy.default and "device" in kwargs and first is not None:
            here, there = first.device.type, torch.device(kwargs["device"]).type
            self.counted[f"{here} to {there}"] += here != there
        if "scaled_dot_product" in str(func):
            self.kernels["flash" if "flash" in str(func) else "other"] += 1
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self.flops += flops_of(func, args, kwargs, out)
        return out


def flops_of(func: Any, args: Any, kwargs: Any, out: Any) -> int:
    """Of one call of an operator; 0 for what is neither a product nor attention."""
    formula = FORMULAS.get(func._overloadpacket)
    return int(formula(*args, **kwargs, out_val=out)) if formula else 0
