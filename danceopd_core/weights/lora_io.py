"""LoRA files: read strictly in the common layouts, written in the one that both ComfyUI and diffusers read.

That is `transformer.<module>.lora_A.weight` / `.lora_B.weight` with the scale alpha / rank folded into lora_B:
ComfyUI reads no alpha from metadata, and diffusers rejects or ignores alpha tensors under that prefix.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from .lora import Lora, Shapes
from .lora_header import NO_NUMBERS, lora_header, refuse_lora, weights_file
from .lora_keys import peft_path
from .safetensors_io import finite, listed, open_safetensors, write_safetensors

MOST_SCALE = 1e30
"""Of a layer: what is larger is no number in float32."""


def read_lora(path: str | Path, shapes: Shapes) -> Lora:
    """Reads a LoRA file, or a peft folder, as float32 factors with scale 1 by diffusers' module names.

    The layouts of diffusers, peft, ComfyUI, the original models and kohya are in `lora_keys`. A layer that covers
    several of the network's is split by its output rows, which is exact; the parts share `down`.
    Alpha is taken from `.alpha` tensors, else from the diffusers metadata or peft's adapter_config.json,
    else it is the rank. InputError, naming the file and the first keys, unless every key is used, every
    layer has both factors, all shapes fit `shapes` and all weights are finite. Keys that add zeros are passed over.
    """
    path = weights_file(Path(path))
    down, up = {}, {}
    with open_safetensors(path) as handle:
        header = lora_header(path, handle, shapes)
        refuse_lora(path, header)
        for layer, keys in header.keys.items():
            factors = {part: handle.get_tensor(key).clone() for part, key in keys.items()}  # out of the mapped file
            for part, key in keys.items():
                if not finite(factors[part].float() if part == "alpha" else factors[part]):
                    header.add_fault(NO_NUMBERS, key)
            if header.faults:
                continue
            rank = len(factors["down"])
            scale = factors["alpha"].item() / rank if "alpha" in factors else None
            scale = header.settings.scale(peft_path(header.names[layer]), rank) if scale is None else scale
            whole = factors["up"].float() * scale if abs(scale) < MOST_SCALE else None
            if whole is None or not finite(whole):
                header.add_fault("have an alpha that makes them infinite", header.names[layer])
                continue
            if layer.swapped:
                whole = whole.roll(len(whole) // 2, 0)
            parts = whole.split([shapes[module][0] for module in layer.modules])
            for module, up_part in zip(layer.modules, parts, strict=True):
                down[module], up[module] = factors["down"].float(), up_part
    refuse_lora(path, header)
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
    path = Path(path)
    tensors = {}
    for module, up in lora.folded().up.items():
        tensors[f"{prefix}{module}.lora_A.weight"] = lora.down[module].detach().to("cpu", dtype, copy=True).contiguous()
        tensors[f"{prefix}{module}.lora_B.weight"] = up.detach().to("cpu", dtype).contiguous()
    bad = [key for key, tensor in tensors.items() if not finite(tensor)]
    if bad:
        raise InputError(f"{path} is not written: {listed(bad)} would be NaN or infinity as {dtype}; save as float32")
    metadata = {"format": "pt", **(metadata or {})}
    if "modelspec.sai_model_spec" in metadata:
        metadata["modelspec.hash_sha256"] = f"0x{_content_hash(tensors)}"
    write_safetensors(path, tensors, metadata)


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the tensors as a file of one dtype holds them behind its header: by name."""
    digest = hashlib.sha256()
    for _, tensor in sorted(tensors.items()):
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


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
