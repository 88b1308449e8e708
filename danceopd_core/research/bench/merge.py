"""Weight merging: one LoRA that is a weighted sum of others."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...errors import InputError
from ...weights.lora import Lora


def merged_lora(parts: Sequence[tuple[Lora, float]]) -> Lora:
    """The LoRA whose change of each layer is the weighted sum of the parts' changes, exactly: their ranks add up."""
    if not parts:
        raise InputError("there is no LoRA to merge")
    modules = list(dict.fromkeys(module for lora, _ in parts for module in lora.down))
    down, up = {}, {}
    for module in modules:
        there = [(lora, weight) for lora, weight in parts if module in lora.down]
        down[module] = torch.cat([lora.down[module] for lora, _ in there])
        up[module] = torch.cat([weight * lora.scale * lora.up[module] for lora, weight in there], 1)
    return Lora(down, up)
