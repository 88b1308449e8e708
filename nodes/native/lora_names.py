"""LoRAs of any layout that ComfyUI reads, as factors by native module names, and back as files that it reads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import comfy.lora
import torch
from comfy.lora_convert import convert_lora
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import load_lora_for_models
from comfy.utils import load_torch_file
from comfy.weight_adapter import LoRAAdapter
from torch import Tensor

from ...danceopd_core.errors import InputError
from ...danceopd_core.shapes import locate
from ...danceopd_core.weights.linear_like import linear_shapes
from ...danceopd_core.weights.lora import Lora, Shapes
from ...danceopd_core.weights.lora_keys import COMPILED, FULL_ENDS, describe_unknown, key_parts, without_wrappers

PREFIX = "diffusion_model."


def read_native_lora(path: str, model: BaseModel) -> Lora:
    """A LoRA file as ComfyUI's stock loader applies it to this model, as float32 factors of scale 1.

    InputError, naming the first keys, unless every key is used, all of it is plain LoRA of linear layers, all
    shapes fit and all weights are finite.
    """
    return lora_of(load_torch_file(path, safe_load=True), model, path)


def patched(patcher: ModelPatcher, name: str, strength: float = 1.0) -> ModelPatcher:
    """A MODEL with a LoRA file, or an embedded LoRA, on it as by the stock loader; the weights are shared."""
    lora, metadata = load_torch_file(str(locate(name)), safe_load=True, return_metadata=True)
    return load_lora_for_models(patcher, None, lora, strength, 0.0, lora_metadata=metadata)[0]


def passed_over(path: str, patcher: ModelPatcher) -> tuple[list[str], int]:
    """The keys of a LoRA file that the stock loader would pass over on this MODEL, and how many it has."""
    state = convert_lora(load_torch_file(path, safe_load=True))
    patches = comfy.lora.load_lora(state, comfy.lora.model_lora_keys_unet(patcher.model, {}), log_missing=False)
    taken = {key for patch in patches.values() for key in getattr(patch, "loaded_keys", ())}
    return [key for key in state if key not in taken and not key.endswith(FULL_ENDS)], len(state)


def lora_of(state: Mapping[str, Tensor], model: BaseModel, name: str) -> Lora:
    """The same for the tensors of a file; `name` is what errors call it."""
    to_load = comfy.lora.model_lora_keys_unet(model, {})
    state = convert_lora(
        _renamed({key: tensor for key, tensor in state.items() if not _adds_zeros(key, tensor)}, to_load)
    )
    if odd := [key for key, tensor in state.items() if key.endswith(".alpha") and tensor.numel() != 1]:
        raise InputError(f"{name} cannot be used as a LoRA: {odd[0]} is no single number")
    patches = comfy.lora.load_lora(state, to_load, log_missing=False)
    loaded = {key for patch in patches.values() if isinstance(patch, LoRAAdapter) for key in patch.loaded_keys}
    shapes = {PREFIX + module: shape for module, shape in linear_shapes(model.diffusion_model).items()}
    faults: dict[str, list[str]] = {}
    for key in state:
        if key not in loaded:
            faults.setdefault(describe_unknown(key), []).append(key)
    downs: dict[str, list[Tensor]] = {}
    ups: dict[str, list[Tensor]] = {}
    for key, patch in patches.items():
        place, offset, function = (*key, None)[:3] if isinstance(key, tuple) else (key, None, None)
        module = place.removesuffix(".weight")
        fault = _fault(patch, module, shapes, offset)
        if fault:
            faults.setdefault(fault, []).append(module)
            continue
        down, up = _factors(patch, shapes[module], offset, function)
        downs.setdefault(module.removeprefix(PREFIX), []).append(down)
        ups.setdefault(module.removeprefix(PREFIX), []).append(up)
    if faults or not downs:
        found = "; ".join(f"{len(keys)} {fault} ({', '.join(keys[:3])})" for fault, keys in faults.items())
        raise InputError(
            f"{name} cannot be used as a LoRA of this MODEL ({type(model.model_config).__name__}): "
            f"{found or 'it is empty'}. Give a plain LoRA of this very model, without text-encoder weights"
        )
    # Several patches of one layer, such as query, key and value of a fused one, are one LoRA of their summed rank.
    return Lora(
        {module: torch.cat(parts) for module, parts in downs.items()},
        {module: torch.cat(parts, 1) for module, parts in ups.items()},
    )


def native_tensors(lora: Lora, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The tensors of a file that every ComfyUI model reads without a conversion: the scale is folded into lora_B."""
    tensors: dict[str, Tensor] = {}
    for module, up in lora.folded().up.items():
        tensors[f"{PREFIX}{module}.lora_A.weight"] = lora.down[module].detach().to("cpu", dtype, copy=True).contiguous()
        tensors[f"{PREFIX}{module}.lora_B.weight"] = up.detach().to("cpu", dtype, copy=True).contiguous()
    return tensors


def _adds_zeros(key: str, tensor: Tensor) -> bool:
    """As ComfyUI's trainer saves for biases and norms that it did not train."""
    return key.endswith(FULL_ENDS) and not torch.count_nonzero(tensor.float())


def _renamed(state: Mapping[str, Tensor], to_load: Mapping[str, Any]) -> dict[str, Tensor]:
    """The keys as ComfyUI knows them, where they differ only in what is written before a layer's name."""
    flat: dict[str, str] = {}
    for name in to_load:
        flat.setdefault(without_wrappers(name).replace(".", "_"), name)
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        parts, layer = key_parts(key), None
        if parts is not None and parts.layer not in to_load:
            bare = without_wrappers(parts.layer.replace(COMPILED, ""))
            names = (bare, f"transformer.{bare}", f"{PREFIX}{bare}", flat.get(bare.replace(".", "_"), ""))
            layer = next((name for name in names if name in to_load), None)
        new = key if parts is None or layer is None else layer + key[len(parts.layer) :]
        renamed[key if new in state or new in renamed else new] = tensor
    return renamed


def _fault(patch: Any, module: str, shapes: Shapes, offset: Any) -> str:
    """What keeps a patch of ComfyUI from being two factors of a linear layer; empty if nothing does."""
    if not isinstance(patch, LoRAAdapter):
        return "change weights otherwise than a plain LoRA does"
    up, down, alpha, middle, dora, reshape = patch.weights
    if min(up.ndim, down.ndim) < 2 or not len(down):
        return f"are of shapes {tuple(up.shape)} and {tuple(down.shape)}, which are no two factors"
    if middle is not None or dora is not None or reshape is not None:
        return "are of a Tucker decomposition, DoRA or a changed shape, which is no plain LoRA"
    if module not in shapes:
        return "change layers that are not linear"
    rows, columns = shapes[module]
    rows = offset[2] if offset is not None else rows
    if offset is not None and offset[0] != 0:
        return "change some of a layer's inputs only"
    if (up.shape[0], down.flatten(1).shape[1]) != (rows, columns) or up.flatten(1).shape[1] != len(down):
        return f"do not fit the network, {tuple(up.shape)} times {tuple(down.shape)} for a layer of {(rows, columns)}"
    if not (torch.isfinite(up.float()).all() and torch.isfinite(down.float()).all() and math.isfinite(alpha or 0)):
        return "hold NaN or infinity"
    return ""


def _factors(
    patch: LoRAAdapter, shape: tuple[int, int], offset: Any, function: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Tensor]:
    """`down` and `up` of one patch for the whole layer, the scale in `up`: rows that it leaves alone are zero."""
    up, down, alpha = patch.weights[0].float().flatten(1), patch.weights[1].float().flatten(1), patch.weights[2]
    up = up * (1.0 if alpha is None else alpha / len(down))
    if function is not None:  # it reorders rows
        up = function(up)
    if offset is not None:
        whole = torch.zeros(shape[0], up.shape[1])
        whole[offset[1] : offset[1] + offset[2]] = up
        up = whole
    return down, up
