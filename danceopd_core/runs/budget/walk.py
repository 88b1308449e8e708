"""Walks a network on the meta device and counts the bytes that a forward and backward pass would hold.

The pass is the real one: the family's own `velocity`, the project's LoRA layers, checkpointing. Meta tensors have
shapes and storages without memory, so a model of any size is walked in seconds. Attention is counted as flash attention
where there is no mask, and as memory-efficient attention where there is one, as on a GPU.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.checkpoint import checkpoint

BLOCK = 512
"""Allocators on a GPU give memory in blocks of this many bytes."""
ATEN = torch.ops.aten
READS = (ATEN._local_scalar_dense.default, ATEN.item.default)
INDEXED = (ATEN.index.Tensor, ATEN.index_put.default, ATEN.index_put_.default, ATEN._index_put_impl_.default)


class Meter(TorchDispatchMode):
    """Counts the storages of meta tensors made inside it. live, peak: bytes now, and the most since `restart`."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def restart(self) -> int:
        """Forgets the peak so far; returns what is alive now."""
        self.peak = self.live
        return self.live

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        first = next((tensor for tensor in given if tensor.is_meta), None)
        for tensor in given:  # weights and inputs from outside do not count
            if tensor.is_meta:
                self._known.add(tensor.untyped_storage())
        if first is not None and func in READS:  # a meta tensor has no value: any will do for shapes
            return True if first.dtype == torch.bool else (0.5 if first.is_floating_point() else 1)
        if first is not None and func is ATEN.equal.default:
            return True
        if (
            first is not None
            and func is ATEN._to_copy.default
            and torch.device(kwargs.get("device") or "meta").type != "meta"
        ):
            return torch.zeros(first.shape, dtype=kwargs.get("dtype") or first.dtype)
        if first is not None and func is ATEN.where.self:  # of a mask that has values
            args = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), args)
        if first is not None and func in INDEXED:
            return self._counted(_indexed(func, args, kwargs))
        return self._counted(func(*args, **kwargs))

    def _counted(self, out: Any) -> Any:
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and tensor.is_meta:
                self._count(tensor)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        size = -(-storage.nbytes() // BLOCK) * BLOCK
        self._known.add(storage)
        weakref.finalize(storage, self._freed, size)
        self.live += size
        self.peak = max(self.peak, self.live)

    def _freed(self, size: int) -> None:
        self.live -= size


def _indexed(func: Any, args: Any, kwargs: Any) -> Any:
    """Indexing with indices brought to the meta device; a mask counts as all true."""
    x, indices, *rest = args
    if any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices):
        if func is not ATEN.index.Tensor:
            return x
        chosen = next(index for index in indices if index is not None)
        return x.new_empty((chosen.numel(), *x.shape[chosen.ndim :]))
    rest = tree_map_only(Tensor, lambda tensor: tensor.to("meta"), rest)
    return func(x, [index if index is None else index.to("meta") for index in indices], *rest, **kwargs)


class GpuAttention(TorchFunctionMode):
    """Attention by the kernels that a GPU takes for it, instead of the plain products that meta tensors get."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        query = kwargs.get("query", args[0] if args else None)
        if func is torch.nn.functional.scaled_dot_product_attention and query is not None and query.is_meta:
            return _attention(*args, **kwargs)
        return func(*args, **kwargs)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if attn_mask is None and query.dtype in (torch.bfloat16, torch.float16):
        flash = ATEN._scaled_dot_product_flash_attention.default
        return flash(query, key, value, dropout_p, is_causal, False, scale=scale)[0]
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    efficient = ATEN._scaled_dot_product_efficient_attention.default
    gradient = torch.is_grad_enabled()
    return efficient(query, key, value, attn_mask, gradient, dropout_p, is_causal, scale=scale)[0]


def recomputed(block: Any, *inputs: Any) -> Any:
    """The `gradient_checkpointing_func` of a walk: diffusers' own, with attention counted the same in both passes."""
    call = getattr(block, "__call__", block)  # noqa: B004 (diffusers gives modules and functions)
    return checkpoint(call, *inputs, use_reentrant=False, context_fn=lambda: (nullcontext(), GpuAttention()))


def walked(forward: Callable[[], Tensor], train: bool) -> int:
    """The most bytes that `forward`, and its backward pass if `train`, hold at once beside what was there before."""
    meter = Meter()
    with ExitStack() as modes:
        modes.enter_context(GpuAttention())
        modes.enter_context(meter)
        modes.enter_context(torch.set_grad_enabled(train))
        before = meter.restart()
        out = forward()
        if train:
            out.square().mean().backward()
        return meter.peak - before
