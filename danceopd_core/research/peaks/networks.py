"""The networks of released models with random weights, filled on a device without a copy on the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ...models.loading import frozen
from ...models.precision import dtype_of
from ...models.quantise import check_quantise, from_pretrained_kwargs
from ...runs.budget.released import Released
from ...weights.lora import Lora

SPREAD = 0.02
"""Standard deviation of weights: as of initialised transformers, so that activations stay finite in half precision."""


def filled_network(
    model: Released, device: torch.device, base: str | None = None, dtype: torch.dtype = torch.bfloat16
) -> nn.Module:
    """The frozen network of a released model, each weight filled on the device and quantised there if `base` is given.

    It is quantised by diffusers' own quantisers, as one that is read from a folder. InputError where this kind cannot
    be loaded.
    """
    from accelerate import init_empty_weights

    if base is not None:
        check_quantise(base, device)
    # Weights alone are left out: positions and frequencies are computed when the network is made.
    network = frozen(model.network(init_empty_weights()), dtype)
    return fill(network, device, dtype, base)


def fill(network: nn.Module, device: torch.device, dtype: torch.dtype, base: str | None = None) -> nn.Module:
    """The same for a network whose weights are on the meta device and whose buffers are on the CPU."""
    cls, quantiser = type(network), base and _quantiser(network, base, dtype, device)
    for name, parameter in list(network.named_parameters()):
        value = _random(name, parameter.shape, dtype_of(cls, name, dtype), device)
        if quantiser and quantiser.check_if_quantized_param(network, value, name, {}, param_device=str(device)):
            quantiser.create_quantized_param(network, value, name, device, {}, [])
        else:
            module, _, attribute = name.rpartition(".")
            network.get_submodule(module)._parameters[attribute] = nn.Parameter(value, requires_grad=False)
    for part in network.modules():
        for attribute, buffer in part._buffers.items():
            part._buffers[attribute] = None if buffer is None else buffer.to(device)
    return network.eval().requires_grad_(False)


def filled_lora(lora: Lora, device: torch.device) -> Lora:
    """A LoRA of these shapes with random factors on the device; on the meta device it is the same."""

    def random(factor: Tensor) -> Tensor:
        return torch.empty(factor.shape, dtype=factor.dtype, device=device).normal_(std=SPREAD)

    down, up = ({module: random(factor) for module, factor in part.items()} for part in (lora.down, lora.up))
    return Lora(down, up, lora.scale)


def _random(name: str, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
    value = torch.empty(shape, dtype=dtype, device=device)
    return value.fill_(1) if len(shape) == 1 and name.endswith("weight") else value.normal_(std=SPREAD)


def _quantiser(network: Any, base: str, dtype: torch.dtype, device: torch.device) -> Any:
    from diffusers.quantizers import DiffusersAutoQuantizer

    settings = from_pretrained_kwargs(base, dtype, device)
    quantiser = DiffusersAutoQuantizer.from_config(settings["quantization_config"], pre_quantized=False)
    placed = settings.get("device_map")
    quantiser.validate_environment(torch_dtype=dtype, device_map=placed)
    kept = list(getattr(network, "_keep_in_fp32_modules", None) or [])
    quantiser.preprocess_model(model=network, device_map=placed, keep_in_fp32_modules=kept)
    return quantiser
