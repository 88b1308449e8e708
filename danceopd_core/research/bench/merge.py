"""Weight merging: one LoRA that is the weighted sum of others."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ...errors import InputError
from ...weights.lora import Lora


def merged_lora(parts: Sequence[tuple[Lora, float]]) -> Lora:
    """The LoRA whose weight change in each module is exactly the weighted sum of the parts'; its rank is their sum."""
    if not parts:
        raise InputError("no LoRA to merge: the teachers have none, choose another row")
    modules = list(dict.fromkeys(module for lora, _ in parts for module in lora.down))
    down, up = {}, {}
    for module in modules:
        present = [(lora, weight) for lora, weight in parts if module in lora.down]
        down[module] = torch.cat([lora.down[module] for lora, _ in present])
        up[module] = torch.cat([weight * lora.scale * lora.up[module] for lora, weight in present], 1)
    return Lora(down, up)
