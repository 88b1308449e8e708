"""Which modules take a LoRA: any that multiplies by one (out, in) matrix, whether or not torch's own Linear.

Quantised models hold linear layers that are no nn.Linear (ComfyUI's mixed-precision and GGUF layers): they keep
`in_features` and `out_features`, and their weight may have any dtype and any stored shape.
"""

from __future__ import annotations

from typing import Protocol, TypeGuard

from torch import Tensor, nn


class LinearLike(Protocol):
    """A module with the signature of nn.Linear: (..., in_features) -> (..., out_features)."""

    in_features: int
    out_features: int

    def __call__(self, x: Tensor) -> Tensor: ...


def is_linear_like(module: nn.Module) -> TypeGuard[LinearLike]:
    """Whether a module is a leaf that states `in_features` and `out_features` of one matrix.

    Banks of experts state them too, for several matrices at once, and are left out.
    """
    if isinstance(module, nn.Linear):
        return True
    settings = vars(module)
    sizes = (settings.get("in_features"), settings.get("out_features"))
    return all(isinstance(size, int) for size in sizes) and "num_experts" not in settings and not module._modules


def linear_shapes(network: nn.Module) -> dict[str, tuple[int, int]]:
    """(out, in) of every module that takes a LoRA, by module name."""
    return {
        name: (module.out_features, module.in_features)
        for name, module in network.named_modules()
        if is_linear_like(module)
    }
