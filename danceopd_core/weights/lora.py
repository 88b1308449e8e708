"""A LoRA as a value: low-rank factors by module name, a fresh one to train, and the sum of two."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import InputError

Shapes = Mapping[str, tuple[int, int]]
"""(out, in) of the linear layers of a network, by module name."""


@dataclass(frozen=True, eq=False)
class Lora:
    """W + scale * up @ down for some linear layers: `down` (rank, in) and `up` (out, rank) by module name."""

    down: Mapping[str, Tensor]
    up: Mapping[str, Tensor]
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """The largest rank of its layers."""
        return max(len(down) for down in self.down.values())

    def folded(self) -> Lora:
        """The same LoRA with its scale multiplied into `up`, so that its scale is 1."""
        return Lora(self.down, {module: up * self.scale for module, up in self.up.items()})


def stacked(first: Lora, second: Lora) -> Lora:
    """The exact sum of two LoRAs, with scale 1: up = [up_1 scale_1 | up_2 scale_2], down = [down_1; down_2]."""
    first, second = first.folded(), second.folded()
    shared = first.down.keys() & second.down.keys()
    down, up = {**first.down, **second.down}, {**first.up, **second.up}
    for module in shared:
        down[module] = torch.cat([first.down[module], second.down[module]])
        up[module] = torch.cat([first.up[module], second.up[module]], 1)
    return Lora(down, up)


def fresh_lora(shapes: Shapes, rank: int, alpha: float, targets: Sequence[str], generator: torch.Generator) -> Lora:
    """An untrained LoRA: `down` is initialised as in peft (Kaiming uniform), `up` is zero, so it changes nothing yet.

    `targets` are module names or their endings; InputError for one that matches no linear layer.
    """
    if rank < 1 or not alpha > 0:
        raise InputError(f"a LoRA of rank {rank} and alpha {alpha:g} cannot learn: both must be positive")
    modules = [module for module in shapes if any(_matches(target, module) for target in targets)]
    unmatched = [target for target in targets if not any(_matches(target, module) for module in shapes)]
    if unmatched or not modules:
        endings = sorted({re.sub(r"^(.*\.\d+\.|.*\.(?=\D))", "", module) for module in shapes})
        raise InputError(
            f"targets: no linear layer is named {unmatched or 'by no targets'}; names end in: {', '.join(endings)}"
        )
    down, up = {}, {}
    for module in modules:
        outputs, inputs = shapes[module]
        bound = 1 / math.sqrt(inputs)
        down[module] = torch.empty(rank, inputs).uniform_(-bound, bound, generator=generator)
        up[module] = torch.zeros(outputs, rank)
    return Lora(down, up, alpha / rank)


def _matches(target: str, module: str) -> bool:
    return module == target or module.endswith(f".{target}")
