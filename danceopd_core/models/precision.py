"""Which weights a network of diffusers keeps in float32, whatever dtype it is loaded in."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def dtype_of(cls: Any, name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a parameter of a class that is loaded in `dtype`, as in `from_pretrained`: float32 of some norms."""
    kept = getattr(cls, "_keep_in_fp32_modules", None) if cls.__module__.startswith("diffusers.") else None
    return torch.float32 if kept and not set(name.split(".")).isdisjoint(kept) else dtype


def cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module in this dtype, but for what stays in float32. diffusers' own `to` would warn of it."""
    named = dict(module.named_parameters())
    kept = {name: part.data for name, part in named.items() if dtype_of(type(module), name, dtype) != dtype}
    nn.Module.to(module, dtype)
    for name, data in kept.items():
        module.get_parameter(name).data = data
    return module
