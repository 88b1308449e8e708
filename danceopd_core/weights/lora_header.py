"""What the header of a LoRA file says: the layers that it changes, and everything that keeps it from being used."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..errors import InputError
from .lora import Shapes
from .lora_alpha import PeftSettings, peft_settings
from .lora_keys import (
    FULL_ENDS,
    LONGEST_KEY,
    NO_MODULE,
    describe_kind,
    describe_unknown,
    file_layer,
    key_parts,
    layer_names,
    peft_path,
)
from .original_layers import FileLayer
from .safetensors_io import listed, open_safetensors

PACKED = ("F4", "F6_")
"""Types of less than a byte, with which torch does not calculate."""
NO_NUMBERS = "hold NaN, infinity or no real numbers"

Faults = dict[str, list[str]]
"""What is wrong, as a plural predicate -> the keys or layers of which it is true."""


@dataclass
class LoraHeader:
    """The layers of a file: for each its name there, and its keys by "down", "up" and "alpha"."""

    settings: PeftSettings
    keys: dict[FileLayer, dict[str, str]] = field(default_factory=dict)
    names: dict[FileLayer, str] = field(default_factory=dict)
    faults: Faults = field(default_factory=dict)

    def add_fault(self, fault: str, name: str) -> None:
        self.faults.setdefault(fault, []).append(name)


def check_lora(path: str | Path, shapes: Shapes | None = None) -> None:
    """InputError if the header of a LoRA file, or of the one in a folder, says that it cannot be used.

    shapes: (out, in) of the network's linear layers; None: unknown, and only what no network can use is refused. A
    LoRA that passes can still hold NaN.
    """
    path = weights_file(Path(path))
    with open_safetensors(path) as handle:
        header = lora_header(path, handle, shapes) if shapes is not None else _without_network(path, handle)
    refuse_lora(path, header)


def lora_header(path: Path, handle: Any, shapes: Shapes) -> LoraHeader:
    """The header of an open file for a network of these shapes. InputError for settings that cannot be used."""
    header, names = LoraHeader(_settings(path, handle)), layer_names(shapes)
    dims: dict[FileLayer, dict[str, tuple[int, ...]]] = {}
    for key in handle.keys():  # noqa: SIM118 (a safetensors handle, no dict)
        parts = key_parts(key)
        layer = file_layer(names, parts.layer) if parts else None
        if parts is None or layer is None:
            if not _changes_nothing(handle, key):
                header.add_fault(describe_unknown(key), key)
            continue
        header.names.setdefault(layer, parts.layer)
        if parts.part in header.keys.setdefault(layer, {}):
            header.add_fault("repeat another key", key)
            continue
        header.keys[layer][parts.part] = key
        dtype = str(handle.get_slice(key).get_dtype())
        if dtype.startswith(PACKED) or (parts.part != "alpha" and not dtype.startswith(("F", "BF"))):
            header.add_fault(NO_NUMBERS, key)
        dims.setdefault(layer, {})[parts.part] = tuple(handle.get_slice(key).get_shape())
    covered: set[str] = set()
    for layer, sizes in dims.items():
        rows = sum(shapes[module][0] for module in layer.modules)
        fault = _shape_fault(sizes, (rows, shapes[layer.modules[0]][1]))
        if not covered.isdisjoint(layer.modules):
            fault = "repeat another key"
        covered.update(layer.modules)
        fault = fault or _settings_fault(header.settings, header.names[layer], sizes)
        if fault:
            header.add_fault(fault, header.names[layer])
    return header


def refuse_lora(path: Path, header: LoraHeader) -> None:
    """InputError, naming the file and the first keys, if the header has faults or no layers."""
    strays = header.faults.get(NO_MODULE, [])
    if strays and not header.keys and len(header.faults) == 1 and not any("lora" in key.lower() for key in strays):
        raise _no_lora(path)
    if header.faults or not header.keys:
        details = "; ".join(f"{len(names)} {fault} ({listed(names)})" for fault, names in header.faults.items())
        raise InputError(
            f"{path} cannot be used as a LoRA: {details or 'it is empty'}. Give a plain LoRA of this very model, "
            "without text-encoder weights"
        )


def weights_file(path: Path) -> Path:
    """The LoRA file itself, or the one of a folder, where one in half precision may lie beside it.

    InputError unless there is exactly one.
    """
    if not os.path.isdir(path):
        return path
    files = plain_variants(sorted(path.glob("*.safetensors")))
    if len(files) != 1:
        raise InputError(
            f"{path} is a folder with {len(files)} safetensors files "
            f"({listed(file.name for file in files)}): give the one LoRA file"
        )
    return files[0]


def plain_variants(files: list[Path]) -> list[Path]:
    """Without the files in half precision, as diffusers names them, of which the plain one is there too."""
    names = {file.name for file in files}
    return [file for file in files if _plain_name(file.name) == file.name or _plain_name(file.name) not in names]


def _plain_name(name: str) -> str:
    for variant in (".fp16", ".bf16", ".fp32"):
        name = name.replace(f"{variant}.", ".").replace(f"{variant}-", "-")
    return name


def _settings(path: Path, handle: Any) -> PeftSettings:
    keys = list(handle.keys())
    layered = all(key.startswith("base_model.model.") for key in keys) and not any(k.endswith(".alpha") for k in keys)
    return peft_settings(path, handle.metadata() or {}, layered)


def _without_network(path: Path, handle: Any) -> LoraHeader:
    header, found = LoraHeader(_settings(path, handle)), False
    for key in handle.keys():  # noqa: SIM118 (a safetensors handle, no dict)
        kind = describe_kind(key)
        if kind and not _changes_nothing(handle, key):
            header.add_fault(kind, key)
        found = found or "lora" in key.lower()[-LONGEST_KEY:]
    if not found and not header.faults:
        raise _no_lora(path)
    if found:
        header.keys[FileLayer(())] = {}
    return header


def _no_lora(path: Path) -> InputError:
    return InputError(f"{path} holds no LoRA: it has no lora_A or lora_down weights")


def _changes_nothing(handle: Any, key: str) -> bool:
    """Whether a key adds zeros, as ComfyUI's trainer saves for biases and norms that it did not train."""
    if not key.endswith(FULL_ENDS) or str(handle.get_slice(key).get_dtype()).startswith(PACKED):
        return False
    return not torch.count_nonzero(handle.get_tensor(key).float())


def _settings_fault(settings: PeftSettings, name: str, sizes: Mapping[str, tuple[int, ...]]) -> str:
    """Where a layer disagrees with the peft settings of its file, as a plural predicate; empty if nowhere."""
    path = peft_path(name)
    rank = settings.rank_of(path)
    if "alpha" not in sizes and rank not in (None, sizes["down"][0]):
        return f"have rank {sizes['down'][0]}, and {rank} in the settings that came with them"
    if name.startswith("base_model.model.") and settings.leave_out(path):
        return "are left out by the target_modules of the settings that came with them"
    return ""


def _shape_fault(sizes: Mapping[str, tuple[int, ...]], shape: tuple[int, int]) -> str:
    """What is wrong with one layer's tensors, as a plural predicate; empty if nothing is."""
    if "down" not in sizes or "up" not in sizes:
        return "lack one of their two factors"
    down, up = sizes["down"], sizes["up"]
    told = f"{up} times {down} for a layer of {shape}"
    if (len(up), len(down)) != (2, 2) or up[1] != down[0] or 0 in down:
        return f"have factors that do not multiply, {told}"
    if (up[0], down[1]) != shape:
        return f"do not fit the network, {told}"
    return "have an alpha that is not a number" if sizes.get("alpha", ()) not in ((), (1,)) else ""
