"""LoRA layers beside a network's modules, added to their outputs by forward hooks; no module is replaced or renamed.

peft puts a module of its own in the place of each adapted one. That needs torch's Linear, and it renames weights,
which breaks whoever addresses them by name, as ComfyUI's model patcher does. A hook leaves modules, names and
quantised kernels as they are. Values and gradients are those of peft's layers, bit for bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .linear_like import is_linear_like
from .lora import Lora


class HookedFactor(nn.Module):
    """One factor of a LoRA, which keeps its dtype and multiplies in the dtype, and on the device, of its input."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.device, x.dtype))


class HookedLayer:
    """The LoRA layers of one module by adapter name, with the attributes by which `Adapters` switches peft's.

    The output is module(x) + up(down(x)) * scaling, summed over the active adapters.
    """

    def __init__(self, module: nn.Module) -> None:
        self.lora_A: dict[str, HookedFactor] = {}
        self.lora_B: dict[str, HookedFactor] = {}
        self.scaling: dict[str, float] = {}
        self._disable_adapters = False
        self._active_adapter: list[str] = []
        self._handle = module.register_forward_hook(self._add)

    def remove(self) -> None:
        """Takes the hook off: the module is as it was."""
        self._handle.remove()

    def _add(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        if self._disable_adapters:
            return output
        dtype = output.dtype
        for name in self._active_adapter:
            if name in self.lora_A:
                output = output + self.lora_B[name](self.lora_A[name](inputs[0])) * self.scaling[name]
        return output.to(dtype)


def hook_lora(
    network: nn.Module,
    layers: dict[str, HookedLayer],
    name: str,
    lora: Lora,
    device: torch.device,
    dtype: torch.dtype,
) -> None:
    """Adds a LoRA as the adapter `name` to `layers`, by module name, which are made where there is none yet.

    The factors are copies on `device` in `dtype`; the adapter is not active yet. `layers` stay in the order of the
    network's modules, whatever that of the LoRA: optimisers and gradient norms depend on it to the last bit.
    ValueError for a module that is not linear-like.
    """
    modules = dict(network.named_modules())
    unfit = [module for module in lora.down if module not in modules or not is_linear_like(modules[module])]
    if unfit:
        raise ValueError(f"no linear layer of the network is named {unfit[0]!r}")
    for module, down in lora.down.items():
        if module not in layers:
            layers[module] = HookedLayer(modules[module])
        layer = layers[module]
        layer.lora_A[name] = HookedFactor(down.to(device, dtype, copy=True))
        layer.lora_B[name] = HookedFactor(lora.up[module].to(device, dtype, copy=True))
        layer.scaling[name] = lora.scale
    for module in modules:
        if module in layers:
            layers[module] = layers.pop(module)
