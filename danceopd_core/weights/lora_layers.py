"""LoRA layers in a network: finds its linear layers, and injects a LoRA's factors into them through peft."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from .lora import Lora

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer


class LoraFactor(nn.Linear):
    """A factor that keeps its dtype and multiplies in the dtype of its input.

    peft would cast the input to float32 instead, once per adapted layer, and keep that copy for the backward pass.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=False, device="meta")
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype))


def linear_shapes(network: nn.Module) -> dict[str, tuple[int, int]]:
    """(out, in) of every linear layer by module name, the same before and after adapters are injected."""
    return {
        name.removesuffix(".base_layer"): (module.out_features, module.in_features)
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear) and not isinstance(module, LoraFactor)
    }


def has_adapters(network: nn.Module) -> bool:
    """Whether adapters have been injected into the network."""
    return any(name.endswith(".base_layer") for name, _ in network.named_modules())


def inject_lora(network: nn.Module, name: str, lora: Lora, *, float32: bool) -> dict[str, LoraLayer]:
    """Adds a LoRA as the peft adapter `name`; returns all LoRA layers of the network by module name.

    float32: the dtype of the factors; else it is that of the layer if that is a half-precision one. Afterwards the
    adapter is active and trainable, as peft leaves it.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    targets = "|".join(re.escape(module) for module in lora.down)
    config = LoraConfig(r=1, lora_alpha=1, lora_dropout=0.0, target_modules=f"({targets})")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are intended
        # On the meta device peft allocates no random weights; the factors are set below.
        inject_adapter_in_model(config, network, adapter_name=name, low_cpu_mem_usage=True)
    layers = {module: layer for module, layer in network.named_modules() if isinstance(layer, LoraLayer)}
    for module, down in lora.down.items():
        layer = layers[module]
        base = cast(Tensor, layer.get_base_layer().weight)
        layer_dtype = _compute_dtype(layer)
        half = not float32 and layer_dtype in (torch.bfloat16, torch.float16)
        dtype = layer_dtype if half else torch.float32
        layer.lora_A[name] = LoraFactor(down.to(base.device, dtype, copy=True))
        layer.lora_B[name] = LoraFactor(lora.up[module].to(base.device, dtype, copy=True))
        layer.r[name], layer.lora_alpha[name] = len(down), len(down) * lora.scale
        layer.scaling[name] = lora.scale
        layer.cast_input_dtype_enabled = False  # LoraFactor casts its weight instead
    return layers


def _compute_dtype(layer: LoraLayer) -> torch.dtype:
    """The dtype in which the base layer multiplies; 4-bit weights are stored in another one."""
    base = layer.get_base_layer()
    stored = cast(Tensor, base.weight).dtype
    return stored if stored.is_floating_point else cast(torch.dtype, base.compute_dtype)
