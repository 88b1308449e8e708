"""LoRA files: read strictly in the layouts in use, written in the one that ComfyUI and diffusers both read.

That is `transformer.<module>.lora_A.weight` / `.lora_B.weight`, the scale alpha / rank folded into lora_B.
ComfyUI takes no alpha from metadata, and diffusers refuses or ignores alpha tensors under that prefix.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .errors import InputError
from .safe_files import finite, listed, opened

PREFIXES = ("transformer.", "diffusion_model.", "base_model.model.")
ROLES = {"lora_A": "down", "lora_down": "down", "lora_B": "up", "lora_up": "up"}
KEY = re.compile(r"(?P<module>.+)\.(?:(?P<role>lora_A|lora_B|lora_down|lora_up)(?:\.\w+)?\.weight|alpha)")

Shapes = Mapping[str, tuple[int, int]]  # linear layer of the network -> (out, in)


@dataclass(frozen=True, eq=False)
class Lora:
    """W + scale * up @ down for some linear layers: `down` (rank, in) and `up` (out, rank) by module name."""

    down: Mapping[str, Tensor]
    up: Mapping[str, Tensor]
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """The largest rank of its layers."""
        return max(len(down) for down in self.down.values())

    def folded(self) -> Lora:
        """The same change with scale 1."""
        return Lora(self.down, {module: up * self.scale for module, up in self.up.items()})


def read_lora(path: str | Path, shapes: Shapes) -> Lora:
    """A LoRA file, or a peft folder, as float32 factors of scale 1.

    Alpha is taken from `.alpha` tensors, else from the diffusers metadata or peft's adapter_config.json,
    else it is the rank. InputError, naming the file and the first keys, unless every key is used, every
    layer has both factors, all shapes fit `shapes` and all weights are finite.
    """
    path = weights_file(Path(path))
    faults: dict[str, list[str]] = {}
    slots: dict[str, dict[str, Tensor]] = {}  # module -> down, up and perhaps alpha
    with opened(path) as handle:
        settings = _settings(path, handle.metadata() or {})
        for key in handle.keys():  # noqa: SIM118 (a safetensors handle, no dict)
            match = KEY.fullmatch(key)
            module = _module(match["module"], shapes) if match else None
            if match is None or module is None:
                faults.setdefault("are no LoRA of this network", []).append(key)
                continue
            slot = ROLES[match["role"]] if match["role"] else "alpha"
            tensor = handle.get_tensor(key).clone()  # out of the mapped file
            if slot in slots.setdefault(module, {}):
                faults.setdefault("say again what another key says", []).append(key)
            elif not finite(tensor.float() if slot == "alpha" else tensor):
                faults.setdefault("hold NaN, infinity or no real numbers", []).append(key)
            slots[module][slot] = tensor
    for module, slot_of in slots.items():
        fault = _misfit(slot_of, shapes[module])
        if fault:
            faults.setdefault(fault, []).append(module)
    if faults or not slots:
        told = "; ".join(f"{len(names)} {fault} ({listed(names)})" for fault, names in faults.items())
        raise InputError(
            f"{path} cannot be used as a LoRA: {told or 'it is empty'}. Give a LoRA of this very model, with "
            "diffusers' module names and without text-encoder weights"
        )
    down = {module: factors["down"].float() for module, factors in slots.items()}
    up = {module: factors["up"].float() * _scale(module, factors, settings) for module, factors in slots.items()}
    return Lora(down, up)


def write_lora(
    path: str | Path,
    lora: Lora,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes `lora` in full beside `path`, then moves it there: a reader meets the old file or the new one.

    InputError if the weights are not finite in `dtype`.
    """
    from safetensors.torch import save_file

    path = Path(path)
    tensors = {}
    for module, up in lora.folded().up.items():
        tensors[f"transformer.{module}.lora_A.weight"] = lora.down[module].detach().to("cpu", dtype).contiguous()
        tensors[f"transformer.{module}.lora_B.weight"] = up.detach().to("cpu", dtype).contiguous()
    bad = [key for key, tensor in tensors.items() if not finite(tensor)]
    if bad:
        raise InputError(f"{path} is not written: NaN or infinity in {listed(bad)} as {dtype}; save as float32")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata={"format": "pt", **(metadata or {})})
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


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
    """What LoRA managers read from a file (modelspec.*, ss_*), and `extra` as JSON under "danceopd".

    Alpha is the rank, since the scale is folded. `date` is ISO 8601; what is empty is left out.
    """
    told = {
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
    return {key: value for key, value in told.items() if value}


def weights_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    files = sorted(path.glob("*.safetensors"))
    if len(files) != 1:
        raise InputError(
            f"{path} is a folder with {len(files)} safetensors files "
            f"({listed(file.name for file in files)}): give the one LoRA file"
        )
    return files[0]


def _settings(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """peft's settings of the file, without prefix; empty if it came with none."""
    config = path.with_name("adapter_config.json")
    try:
        if "lora_adapter_metadata" in metadata:
            settings = json.loads(metadata["lora_adapter_metadata"])
        elif path.stem == "adapter_model" and config.is_file():
            settings = json.loads(config.read_text(encoding="utf-8"))
        else:
            return {}
        settings = {key.removeprefix("transformer."): value for key, value in settings.items()}
        if "lora_alpha" in settings:
            settings["lora_alpha"] = float(settings["lora_alpha"])
        return settings
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"the LoRA settings that came with {path} cannot be read: {error!r}") from error


def _module(name: str, shapes: Shapes) -> str | None:
    candidates = [name, *(name.removeprefix(prefix) for prefix in PREFIXES)]
    return next((candidate for candidate in candidates if candidate in shapes), None)


def _misfit(slots: Mapping[str, Tensor], shape: tuple[int, int]) -> str:
    """What is wrong with one layer's tensors; empty if nothing is."""
    if "down" not in slots or "up" not in slots:
        return "lack one of their two factors"
    down, up = slots["down"], slots["up"]
    sizes = f"{tuple(up.shape)} times {tuple(down.shape)} for a layer of {shape}"
    if (up.ndim, down.ndim) != (2, 2) or up.shape[1] != down.shape[0] or 0 in down.shape:
        return f"have factors that do not multiply, {sizes}"
    if (up.shape[0], down.shape[1]) != shape:
        return f"do not fit the network, {sizes}"
    return "have an alpha that is no number" if "alpha" in slots and slots["alpha"].numel() != 1 else ""


def _scale(module: str, slots: Mapping[str, Tensor], settings: Mapping[str, Any]) -> float:
    rank = len(slots["down"])
    if "alpha" in slots:
        return slots["alpha"].item() / rank
    pattern = settings.get("alpha_pattern") or {}
    alphas = [alpha for key, alpha in pattern.items() if f".{module}".endswith("." + key.removeprefix("^"))]
    alpha = alphas[0] if alphas else settings.get("lora_alpha", rank)
    return float(alpha) / (math.sqrt(rank) if settings.get("use_rslora") else rank)
