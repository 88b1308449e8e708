"""Gradient checkpointing for networks that bring none: every repeated block is computed again in the backward pass.

torch.utils.checkpoint recomputes from the block's own inputs and keeps what autograd saves by reference. Blocks that
overwrite either, as FLUX's do, would get wrong gradients without an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from .saved_tensors import Saved, SavedTensors, unpack


class _Recomputed:
    """The tensors that one call of a block saves for its backward pass, computed when the first of them is read."""

    def __init__(self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._call = forward, args, kwargs
        self._count = 0
        self._saved: list[Saved] = []

    def run(self) -> Any:
        """The block's output; autograd keeps numbers in the place of tensors."""
        with saved_tensors_hooks(self._number, self._read):
            return self._forward()

    def _forward(self) -> Any:
        forward, args, kwargs = self._call
        return forward(*map(_copied, args), **{name: _copied(value) for name, value in kwargs.items()})

    def _number(self, tensor: Tensor) -> int:
        self._count += 1
        return self._count - 1

    def _read(self, number: int) -> Tensor:
        if not self._saved:
            kept = SavedTensors()
            order: list[Saved] = []

            def pack(tensor: Tensor) -> Saved:
                order.append(kept.pack(tensor))
                return order[-1]

            with torch.enable_grad(), saved_tensors_hooks(pack, unpack), kept:
                self._forward()
            if len(order) != self._count:
                raise RuntimeError(
                    f"a block saved {len(order)} tensors when it was computed again, and {self._count} before"
                )
            self._saved = order
        return self._saved[number].tensor


class _Checkpointed:
    """A block's forward with checkpointing; without gradients, the forward itself."""

    def __init__(self, block: nn.Module) -> None:
        self._forward = block.forward

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._forward(*args, **kwargs)
        return _Recomputed(self._forward, args, kwargs).run()


def enable_checkpointing(network: nn.Module) -> int:
    """Recomputes each of the network's repeated blocks from now on; returns how many there are."""
    blocks = repeated_blocks(network)
    for block in blocks:
        if not isinstance(vars(block).get("forward"), _Checkpointed):
            block.forward = _Checkpointed(block)  # type: ignore[method-assign]
    return len(blocks)


def repeated_blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks of the network's outermost lists of blocks."""
    return [
        block
        for name, parts in network.named_modules()
        if isinstance(parts, nn.ModuleList) and not any(part.isdigit() for part in name.split("."))
        for block in parts
    ]


def _copied(value: Any) -> Any:
    """A tensor that the block may overwrite; other arguments as they are."""
    return value.clone() if isinstance(value, Tensor) and value.is_floating_point() else value
