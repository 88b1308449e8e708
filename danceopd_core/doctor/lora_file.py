"""Reads any LoRA file for an examination: what loaders would refuse is found and told, and not an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import InputError
from ..weights.lora import Lora
from ..weights.lora_alpha import peft_settings
from ..weights.lora_header import weights_file
from ..weights.lora_keys import describe_kind, key_parts, peft_path
from ..weights.safetensors_io import listed, open_safetensors
from .health import Health, examine

STOCK_NAMES = {
    "transformer.": "diffusers' names, which ComfyUI's Load LoRA and diffusers take",
    "diffusion_model.": "ComfyUI's names, which its Load LoRA takes for the model that they are of",
    "lora_unet_": "kohya's names, which ComfyUI's Load LoRA takes",
    "lora_transformer_": "OneTrainer's names, which ComfyUI's Load LoRA takes",
    "lycoris_": "SimpleTuner's names, which ComfyUI's Load LoRA takes",
    "base_model.model.": "peft's names, which ComfyUI's Load LoRA takes for some models only",
}
"""How the keys of a layout begin -> who takes it."""
OTHER_NAMES = "names of no layout that every ComfyUI model takes"


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file as it is. faults: what no loader of plain LoRAs uses, as a plural predicate -> its keys."""

    path: Path
    lora: Lora
    faults: Mapping[str, tuple[str, ...]]
    layouts: Mapping[str, int]
    metadata: Mapping[str, str]

    def health(self) -> Health:
        return examine(self.lora)

    def keys_text(self) -> list[str]:
        """What loaders make of its keys, a line each."""
        lines = [f"{count} layers with {layout}" for layout, count in self.layouts.items()]
        return lines + [f"{len(keys)} keys {fault}: {listed(keys)}" for fault, keys in self.faults.items()]


def read_for_examination(path: str | Path) -> LoraFile:
    """A LoRA file, or the one of a folder, whatever its weights hold.

    Its layers are by the names of the file. InputError for a file that cannot be read, that holds no LoRA, or whose
    settings cannot be used.
    """
    path = weights_file(Path(path))
    factors: dict[str, dict[str, Tensor]] = {}
    faults: dict[str, list[str]] = {}
    with open_safetensors(path) as handle:
        keys, metadata = list(handle.keys()), dict(handle.metadata() or {})
        for key in keys:
            parts, kind = key_parts(key), describe_kind(key)
            if parts is None or kind:
                faults.setdefault(kind or "are of no LoRA", []).append(key)
            elif parts.part != "alpha" and not _has_matrix(handle, key):
                faults.setdefault("hold no matrix of numbers", []).append(key)
            else:
                factors.setdefault(parts.layer, {})[parts.part] = handle.get_tensor(key)
    if not factors:
        raise InputError(f"{path} holds no LoRA: it has no lora_A or lora_down weights")
    layered = all(key.startswith("base_model.model.") for key in keys) and not any(k.endswith(".alpha") for k in keys)
    settings = peft_settings(path, metadata, layered)
    down, up, layouts = {}, {}, dict[str, int]()
    for layer, parts_of in factors.items():
        fault = _fault(parts_of)
        if fault:
            faults.setdefault(fault, []).append(layer)
            continue
        rank = len(parts_of["down"])
        alpha = parts_of.get("alpha")
        scale = settings.scale(peft_path(layer), rank) if alpha is None else float(alpha.float()) / rank
        down[layer], up[layer] = parts_of["down"], parts_of["up"].double() * scale
        layout = next((told for start, told in STOCK_NAMES.items() if layer.startswith(start)), OTHER_NAMES)
        layouts[layout] = layouts.get(layout, 0) + 1
    return LoraFile(path, Lora(down, up), {fault: tuple(names) for fault, names in faults.items()}, layouts, metadata)


def _has_matrix(handle: Any, key: str) -> bool:
    part = handle.get_slice(key)
    shape = tuple(part.get_shape())
    return str(part.get_dtype()).startswith(("F", "BF")) and len(shape) >= 2 and 0 not in shape


def _fault(parts: Mapping[str, Tensor]) -> str:
    if not {"down", "up"} <= parts.keys():
        return "lack one of their two factors"
    if parts["up"].flatten(1).shape[1] != len(parts["down"]):
        return "have factors that do not multiply"
    alpha = parts.get("alpha")
    return "" if alpha is None or alpha.numel() == 1 else "have an alpha that is not a number"
