"""LoRA files: read strictly in the common layouts, written in the one that both ComfyUI and diffusers read.

That is `transformer.<module>.lora_A.weight` / `.lora_B.weight` with the scale alpha / rank folded into lora_B:
ComfyUI reads no alpha from metadata, and diffusers rejects or ignores alpha tensors under that prefix.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..files import atomic
from .lora import Lora, Shapes
from .lora_alpha import layer_scale, peft_settings
from .lora_keys import FileLayer, describe_unknown, layer_names
from .safetensors_io import finite, listed, open_safetensors

FACTORS = {
    "lora_A": "down", "lora_down": "down", "lora.down": "down",
    "lora_B": "up", "lora_up": "up", "lora.up": "up",
}  # fmt: skip
LORA_KEY = re.compile(rf"(?P<layer>.+)\.(?:(?P<factor>{'|'.join(map(re.escape, FACTORS))})(?:\.\w+)?\.weight|alpha)")


def read_lora(path: str | Path, shapes: Shapes) -> Lora:
    """Reads a LoRA file, or a peft folder, as float32 factors with scale 1 by diffusers' module names.

    The layouts of diffusers, peft, ComfyUI, the original models and kohya are in `lora_keys`. A layer that covers
    several of the network's is split by its output rows, which is exact; the parts share `down`.
    Alpha is taken from `.alpha` tensors, else from the diffusers metadata or peft's adapter_config.json,
    else it is the rank. InputError, naming the file and the first keys, unless every key is used, every
    layer has both factors, all shapes fit `shapes` and all weights are finite.
    """
    path = weights_file(Path(path))
    names = layer_names(shapes)
    faults: dict[str, list[str]] = {}
    tensors: dict[FileLayer, dict[str, Tensor]] = {}  # down, up and optionally alpha
    file_names: dict[FileLayer, str] = {}
    with open_safetensors(path) as handle:
        settings = peft_settings(path, handle.metadata() or {})
        for key in handle.keys():  # noqa: SIM118 (a safetensors handle, no dict)
            match = LORA_KEY.fullmatch(key)
            if match is None or match["layer"] not in names:
                faults.setdefault(describe_unknown(key), []).append(key)
                continue
            layer = names[match["layer"]]
            file_names.setdefault(layer, match["layer"])
            part = FACTORS[match["factor"]] if match["factor"] else "alpha"
            tensor = handle.get_tensor(key).clone()  # out of the mapped file
            if part in tensors.setdefault(layer, {}):
                faults.setdefault("repeat another key", []).append(key)
            elif not finite(tensor.float() if part == "alpha" else tensor):
                faults.setdefault("hold NaN, infinity or no real numbers", []).append(key)
            tensors[layer][part] = tensor
    covered: set[str] = set()
    for layer, factors in tensors.items():
        rows = sum(shapes[module][0] for module in layer.modules)
        fault = _shape_fault(factors, (rows, shapes[layer.modules[0]][1]))
        if not covered.isdisjoint(layer.modules):
            fault = "repeat another key"
        covered.update(layer.modules)
        if fault:
            faults.setdefault(fault, []).append(file_names[layer])
    if faults or not tensors:
        details = "; ".join(f"{len(names)} {fault} ({listed(names)})" for fault, names in faults.items())
        raise InputError(
            f"{path} cannot be used as a LoRA: {details or 'it is empty'}. Give a plain LoRA of this very model, "
            "without text-encoder weights"
        )
    down, up = {}, {}
    for layer, factors in tensors.items():
        whole = factors["up"].float() * layer_scale(path, file_names[layer], factors, settings)
        if layer.swapped:
            whole = whole.roll(len(whole) // 2, 0)
        parts = whole.split([shapes[module][0] for module in layer.modules])
        for module, up_part in zip(layer.modules, parts, strict=True):
            down[module], up[module] = factors["down"].float(), up_part
    return Lora(down, up)


def write_lora(
    path: str | Path,
    lora: Lora,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
    prefix: str = "transformer.",
) -> None:
    """Writes a LoRA file atomically: a reader sees either the old file or the complete new one.

    prefix: before the names of the layers; "transformer." for those of diffusers. InputError if the weights are not
    finite in `dtype`.
    """
    from safetensors.torch import save_file

    path = Path(path)
    tensors = {}
    for module, up in lora.folded().up.items():
        tensors[f"{prefix}{module}.lora_A.weight"] = lora.down[module].detach().to("cpu", dtype, copy=True).contiguous()
        tensors[f"{prefix}{module}.lora_B.weight"] = up.detach().to("cpu", dtype).contiguous()
    bad = [key for key, tensor in tensors.items() if not finite(tensor)]
    if bad:
        raise InputError(f"{path} is not written: {listed(bad)} would be NaN or infinity as {dtype}; save as float32")
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", **(metadata or {})})


def lora_metadata(
    lora: Lora,
    *,
    family: str,
    title: str,
    date: str = "",
    author: str = "",
    usage_hint: str = "",
    steps: int | None = None,
    learning_rate: float | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, str]:
    """Metadata that LoRA managers read (modelspec.*, ss_*), and `extra` as JSON under "danceopd".

    Alpha is the rank, since the scale is folded in. `date` is ISO 8601; empty entries are left out.
    """
    fields = {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": f"{family}/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
        "modelspec.date": date,
        "modelspec.author": author,
        "modelspec.usage_hint": usage_hint,
        "ss_network_dim": str(lora.rank),
        "ss_network_alpha": str(lora.rank),
        "ss_steps": "" if steps is None else str(steps),
        "ss_learning_rate": "" if learning_rate is None else str(learning_rate),
        "danceopd": json.dumps(extra, sort_keys=True) if extra else "",
    }
    return {key: value for key, value in fields.items() if value}


def weights_file(path: Path) -> Path:
    """The LoRA file itself, or the only safetensors file of a folder; InputError unless there is exactly one."""
    if not os.path.isdir(path):
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        raise InputError(
            f"{path} is a folder with {len(files)} safetensors files "
            f"({listed(file.name for file in files)}): give the one LoRA file"
        )
    return files[0]


def _shape_fault(tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> str:
    """What is wrong with one layer's tensors, as a plural predicate; empty if nothing is."""
    if "down" not in tensors or "up" not in tensors:
        return "lack one of their two factors"
    down, up = tensors["down"], tensors["up"]
    sizes = f"{tuple(up.shape)} times {tuple(down.shape)} for a layer of {shape}"
    if (up.ndim, down.ndim) != (2, 2) or up.shape[1] != down.shape[0] or 0 in down.shape:
        return f"have factors that do not multiply, {sizes}"
    if (up.shape[0], down.shape[1]) != shape:
        return f"do not fit the network, {sizes}"
    return "have an alpha that is not a number" if "alpha" in tensors and tensors["alpha"].numel() != 1 else ""
