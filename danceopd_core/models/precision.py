"""Which weights a network of diffusers keeps in float32, whatever dtype it is loaded in."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def dtype_of(cls: Any, name: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of this parameter of a class that is loaded in `dtype`, as `from_pretrained` has it (Krea 2's norms)."""
    kept = getattr(cls, "_keep_in_fp32_modules", None) if cls.__module__.startswith("diffusers.") else None
    return torch.float32 if kept and not set(name.split(".")).isdisjoint(kept) else dtype


def cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module in this dtype, but for the weights that stay in float32. diffusers' own `to` would warn of it."""
    kept = {name: part for name, part in module.named_parameters()
            if part.dtype == dtype_of(type(module), name, dtype) != dtype}  # fmt: skip
    kept = {name: part.data for name, part in kept.items()}
    module = nn.Module.to(module, dtype)
    for name, part in module.named_parameters():
        if name in kept:
            part.data = kept[name]
    return module
