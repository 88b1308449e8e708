"""Quantisation of the frozen base model: required packages, diffusers configuration and memory by kind.

The transformer's linear layers are quantised while they are loaded; LoRAs on top of them are not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn

from ..errors import InputError
from ..lookup import lookup


@dataclass(frozen=True)
class Quantisation:
    """A kind of quantisation.

    package, min_version: required to load it. config: compute dtype -> diffusers' quantization_config. weight_bytes:
    (out, in) of a linear layer -> bytes of its stored weight, including scales. keeps_weights: whether a layer keeps
    the weight that it dequantised until the backward pass.
    """

    package: str
    min_version: str
    config: Callable[[torch.dtype], Any]
    weight_bytes: Callable[[int, int], int]
    needs_gpu: bool = False
    keeps_weights: bool = True


def _int8(dtype: torch.dtype) -> Any:
    from diffusers import TorchAoConfig
    from torchao.quantization import Int8WeightOnlyConfig

    # torchao's recommended settings would change the precision of float32 products in the whole process.
    return TorchAoConfig(Int8WeightOnlyConfig(set_inductor_config=False))


def _fp8(dtype: torch.dtype) -> Any:
    from diffusers import TorchAoConfig
    from torchao.quantization import Float8WeightOnlyConfig

    return TorchAoConfig(Float8WeightOnlyConfig(set_inductor_config=False))


def _nf4(dtype: torch.dtype) -> Any:
    from diffusers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def _nf4_bytes(outputs: int, inputs: int) -> int:
    """Two weights per byte, one byte of scale per 64 weights, 4 bytes per 256 scales (QLoRA's double quantisation).

    Code books, a few KiB in total, are not counted.
    """
    blocks = -(-outputs * inputs // 64)
    return -(-outputs * inputs // 2) + blocks + 4 * -(-blocks // 256)


QUANTISATIONS = {
    # Each row has a float32 scale, and with int8 a zero point of one byte.
    "int8": Quantisation("torchao", "0.16.0", _int8, lambda outputs, inputs: outputs * (inputs + 5)),
    "fp8": Quantisation("torchao", "0.16.0", _fp8, lambda outputs, inputs: outputs * (inputs + 4)),
    "nf4": Quantisation("bitsandbytes", "0.43.3", _nf4, _nf4_bytes, needs_gpu=True, keeps_weights=False),
}


def check_quantise(name: str, device: torch.device | str) -> None:
    """InputError if this quantisation cannot be loaded: its package is not installed, or it needs a GPU."""
    from packaging.version import Version

    kind = lookup(QUANTISATIONS, name, "quantisation")
    if kind.needs_gpu and (str(device) == "cpu" or not torch.cuda.is_available()):
        others = ", ".join(other for other, row in QUANTISATIONS.items() if not row.needs_gpu)
        raise InputError(f"{name} can be loaded on a GPU only, and the device is {device}: use {others}, or none")
    try:
        installed = version(kind.package)
    except PackageNotFoundError:
        raise InputError(f"{name} needs {kind.package}: pip install {kind.package}, or leave quantise out") from None
    if Version(installed) < Version(kind.min_version):
        raise InputError(
            f"{name} needs {kind.package} {kind.min_version}, not {installed}: pip install -U {kind.package}"
        )


def from_pretrained_kwargs(name: str, dtype: torch.dtype, device: torch.device | str) -> dict[str, Any]:
    """Arguments of a diffusers model's `from_pretrained` that quantise its linear layers."""
    return {"quantization_config": QUANTISATIONS[name].config(dtype), **_device_map(torch.device(device))}


def _device_map(device: torch.device) -> dict[str, Any]:
    # diffusers treats a device map on the CPU as offloading, and quantises nothing there.
    return {} if device.type == "cpu" else {"device_map": {"": str(device)}}


def network_bytes(network: nn.Module, itemsize: int, name: str | None) -> int:
    """Bytes of a network's weights in a dtype of `itemsize` bytes, quantised if `name` is given.

    The network may be on the meta device.
    """
    plain = itemsize * sum(tensor.numel() for tensor in network.state_dict().values())
    if name is None:
        return plain
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Linear)]
    weight_bytes = QUANTISATIONS[name].weight_bytes
    return plain - sum(itemsize * weight.numel() - weight_bytes(*weight.shape) for weight in weights)


def dequantised_bytes(network: nn.Module, itemsize: int, name: str | None, checkpointing: bool) -> int:
    """Bytes of the weights in `itemsize` bytes that a backward pass needs of a quantised network at its peak.

    torchao's layers keep the weight that they multiplied by until the backward pass: all layers', or with
    `checkpointing` those of one block. bitsandbytes makes it again, one layer's at a time.
    """
    if name is None:
        return 0
    blocks = [block for part in network.modules() if isinstance(part, nn.ModuleList) for block in part]
    if QUANTISATIONS[name].keeps_weights:
        within = [network] if not checkpointing else blocks or [network]
        return itemsize * max(sum(map(_linear_elements, block.modules())) for block in within)
    return itemsize * max(map(_linear_elements, network.modules()))


def _linear_elements(module: nn.Module) -> int:
    return module.weight.numel() if isinstance(module, nn.Linear) else 0
