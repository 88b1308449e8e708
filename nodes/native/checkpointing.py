"""Gradient checkpointing for networks that bring none: every repeated block is recomputed in the backward pass."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


class _Checkpointed:
    """A block's forward, recomputed in the backward pass; without gradients, the forward itself."""

    def __init__(self, block: nn.Module) -> None:
        self._forward = block.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return checkpoint(self._forward, *args, use_reentrant=False, **kwargs)


def enable_checkpointing(network: nn.Module) -> int:
    """Recomputes each block of the network's outermost block lists from now on; returns how many there are.

    A block that changes its inputs in place would be recomputed wrongly: compare gradients with and without.
    """
    blocks = [
        block
        for name, parts in network.named_modules()
        if isinstance(parts, nn.ModuleList) and not any(part.isdigit() for part in name.split("."))
        for block in parts
    ]
    for block in blocks:
        if not isinstance(vars(block).get("forward"), _Checkpointed):
            block.forward = _Checkpointed(block)  # type: ignore[method-assign]
    return len(blocks)
