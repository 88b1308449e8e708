"""LoRA layers beside a network's modules, added to their outputs by forward hooks; no module is replaced or renamed.

Modules of LoRA libraries take the place of the adapted ones. That needs torch's Linear, and it renames weights, which
breaks whoever addresses them by name, as ComfyUI's model patcher does. A hook leaves modules, names and quantised
kernels as they are. Values and gradients are those of peft's layers, to rounding: the product with `up` is scaled and
added to the output in one operation, which rounds once.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from .linear_like import is_linear_like
from .lora import Lora


class Slot(NamedTuple):
    """A LoRA of a layer as tensors: down (rank, in), up (out, rank), and scale, of no dimension."""

    down: Tensor
    up: Tensor
    scale: Tensor


class LoraLayer:
    """The LoRAs of one module by adapter name: its output is module(x) + up(down(x)) * scaling over the active ones.

    Factors keep their dtype and multiply in that of their input.

    slots: what compiled blocks multiply by, whichever LoRAs are active (`lora_slots`); None: not compiled.
    """

    def __init__(self, module: nn.Module) -> None:
        self.down: dict[str, nn.Parameter] = {}
        self.up: dict[str, nn.Parameter] = {}
        self.scaling: dict[str, float] = {}
        self.active: tuple[str, ...] = ()
        self.slots: tuple[Slot, ...] | None = None
        self._casts: dict[nn.Parameter, tuple[int, Tensor]] = {}
        self._handle = module.register_forward_hook(self._add)

    def remove(self) -> None:
        """Takes the hook off: the module is as it was."""
        self._handle.remove()

    def _add(self, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        if self.slots is not None:
            for slot in self.slots:
                output = _plus_slot(output, x, slot)
            return output
        for name in self.active:
            if name in self.down:
                inner = linear(x, self._beside(self.down[name], x))
                output = _plus(output, inner, self._beside(self.up[name], x), self.scaling[name])
        return output

    def _beside(self, factor: nn.Parameter, x: Tensor) -> Tensor:
        """The factor as it multiplies x. A frozen one follows its offloaded network to the device, and stays there.

        A rollout casts a factor once, and not in each of its forwards. The copies go with the first forward that has
        gradients, which makes its own: activations then have the memory.
        """
        if factor.device != x.device and not factor.requires_grad:
            factor.data = factor.data.to(x.device)
        if factor.device == x.device and factor.dtype == x.dtype:
            return factor
        if torch.is_grad_enabled() or factor.is_inference():
            self._casts.pop(factor, None)
            return factor.to(x.device, x.dtype)
        version, cast_factor = self._casts.get(factor, (-1, factor))
        if version != factor._version or cast_factor.device != x.device or cast_factor.dtype != x.dtype:
            cast_factor = factor.detach().to(x.device, x.dtype)
            self._casts[factor] = factor._version, cast_factor
        return cast_factor


def _plus(output: Tensor, inner: Tensor, up: Tensor, scale: float) -> Tensor:
    """output + inner @ up.T * scale, in the dtype of the output; without gradients in its place."""
    if output.dtype != inner.dtype:  # a module that answers in another precision than it is asked in
        return (output + linear(inner, up) * scale).to(output.dtype)
    rows, inner = output.flatten(0, -2), inner.flatten(0, -2)
    if torch.is_grad_enabled() or not output.is_contiguous():
        return torch.addmm(rows, inner, up.t(), alpha=scale).view(output.shape)
    rows.addmm_(inner, up.t(), alpha=scale)
    return output


def _plus_slot(output: Tensor, x: Tensor, slot: Slot) -> Tensor:
    """output + up(down(x)) * scale, in operations that a compiler knows whole."""
    inner = linear(x, slot.down.to(x.dtype)) * slot.scale
    up = slot.up.to(x.dtype)
    if output.dtype != inner.dtype:
        return (output + linear(inner, up)).to(output.dtype)
    return torch.addmm(output.flatten(0, -2), inner.flatten(0, -2), up.t()).view(output.shape)


def has_adapters(network: nn.Module) -> bool:
    """Whether LoRAs have been added to the network."""
    hooks = (hook for module in network.modules() for hook in module._forward_hooks.values())
    return any(isinstance(getattr(hook, "__self__", None), LoraLayer) for hook in hooks)


def add_lora(
    network: nn.Module,
    layers: dict[str, LoraLayer],
    name: str,
    lora: Lora,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Adds a LoRA as the adapter `name` to `layers`, by module name, which are made where there is none yet.

    The factors are copies without gradients on `device` in `dtype`; None: those of each module's weight, in float32
    if it is not of half precision. The adapter is not active yet. `layers` stay in the order of the network's modules,
    whatever that of the LoRA: optimisers and gradient norms depend on it to the last bit. ValueError for a module that
    is not linear-like.
    """
    modules = dict(network.named_modules())
    unfit = [module for module in lora.down if module not in modules or not is_linear_like(modules[module])]
    if unfit:
        raise ValueError(f"no linear layer of the network is named {unfit[0]!r}")
    for module, down in lora.down.items():
        if module not in layers:
            layers[module] = LoraLayer(modules[module])
        layer, weight = layers[module], cast(Tensor, modules[module].weight)
        place, kind = device or weight.device, dtype or _half_or_float32(modules[module])
        layer.down[name] = nn.Parameter(down.to(place, kind, copy=True), requires_grad=False)
        layer.up[name] = nn.Parameter(lora.up[module].to(place, kind, copy=True), requires_grad=False)
        layer.scaling[name] = lora.scale
    for module in modules:
        if module in layers:
            layers[module] = layers.pop(module)


def _half_or_float32(module: nn.Module) -> torch.dtype:
    """The dtype in which the module multiplies if it has half precision; 4-bit weights are stored in another one."""
    stored = cast(Tensor, module.weight).dtype
    dtype = stored if stored.is_floating_point else vars(module).get("compute_dtype")
    return dtype if dtype in (torch.bfloat16, torch.float16) else torch.float32
