"""Quantised frozen bases: what each kind needs, how diffusers is asked for it, and what its weights take.

The transformer's linear layers are quantised while they are loaded; LoRAs over them are not.
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
    """package, least: what has to be installed, from which version on. config: dtype of the products -> diffusers'
    quantization_config. stored: (out, in) of a linear layer -> bytes of its weight, scales included."""

    package: str
    least: str
    config: Callable[[torch.dtype], Any]
    stored: Callable[[int, int], int]
    needs_gpu: bool = False


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
    """Two weights a byte; a byte of scale for 64 weights, and 4 for 256 of those (QLoRA's double quantisation).

    Code books, a few KiB in all, are left out.
    """
    blocks = -(-outputs * inputs // 64)
    return -(-outputs * inputs // 2) + blocks + 4 * -(-blocks // 256)


QUANTISATIONS = {
    # Rows have a float32 scale, and in int8 a zero point of one byte.
    "int8": Quantisation("torchao", "0.16.0", _int8, lambda outputs, inputs: outputs * (inputs + 5)),
    "fp8": Quantisation("torchao", "0.16.0", _fp8, lambda outputs, inputs: outputs * (inputs + 4)),
    "nf4": Quantisation("bitsandbytes", "0.43.3", _nf4, _nf4_bytes, needs_gpu=True),
}


def check_quantise(name: str, device: torch.device | str) -> None:
    """InputError where this quantisation cannot be loaded here: its package is not installed, or there is no GPU."""
    from packaging.version import Version

    kind = lookup(QUANTISATIONS, name, "quantisation")
    if kind.needs_gpu and (str(device) == "cpu" or not torch.cuda.is_available()):
        others = ", ".join(other for other, row in QUANTISATIONS.items() if not row.needs_gpu)
        raise InputError(f"{name} is loaded on a GPU only, and the device is {device}: take {others}, or none")
    try:
        found = version(kind.package)
    except PackageNotFoundError:
        raise InputError(f"{name} needs {kind.package}: pip install {kind.package}, or leave quantise out") from None
    if Version(found) < Version(kind.least):
        raise InputError(f"{name} needs {kind.package} {kind.least}, not {found}: pip install -U {kind.package}")


def loading(name: str, dtype: torch.dtype, device: torch.device | str) -> dict[str, Any]:
    """What `from_pretrained` of a diffusers model is told so that its linear layers are quantised."""
    return {"quantization_config": QUANTISATIONS[name].config(dtype), **_place(torch.device(device))}


def _place(device: torch.device) -> dict[str, Any]:
    # diffusers takes a place on the CPU for one that a model is offloaded to, and quantises nothing there.
    return {} if device.type == "cpu" else {"device_map": {"": str(device)}}


def network_bytes(network: nn.Module, each: int, name: str | None) -> int:
    """What a network (it may be on the meta device) takes in a file's dtype of `each` bytes, quantised or not."""
    whole = each * sum(tensor.numel() for tensor in network.state_dict().values())
    if name is None:
        return whole
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Linear)]
    stored = QUANTISATIONS[name].stored
    return whole - sum(each * weight.numel() - stored(*weight.shape) for weight in weights)
