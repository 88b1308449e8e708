"""LoRA files: read strictly in the layouts in use, written in the one that ComfyUI and diffusers both read.

That is `transformer.<module>.lora_A.weight` / `.lora_B.weight`, the scale alpha / rank folded into lora_B.
ComfyUI takes no alpha from metadata, and diffusers refuses or ignores alpha tensors under that prefix.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..files import atomic
from .lora_keys import Place, places, what_else
from .safetensors_io import finite, listed, opened

ROLES = {
    "lora_A": "down", "lora_down": "down", "lora.down": "down",
    "lora_B": "up", "lora_up": "up", "lora.up": "up",
}  # fmt: skip
KEY = re.compile(rf"(?P<layer>.+)\.(?:(?P<role>{'|'.join(map(re.escape, ROLES))})(?:\.\w+)?\.weight|alpha)")

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


def stacked(first: Lora, second: Lora) -> Lora:
    """Both changes as one of scale 1, exactly: up = [up_1 scale_1 | up_2 scale_2], down = [down_1; down_2]."""
    first, second = first.folded(), second.folded()
    both = first.down.keys() & second.down.keys()
    down, up = {**first.down, **second.down}, {**first.up, **second.up}
    for module in both:
        down[module] = torch.cat([first.down[module], second.down[module]])
        up[module] = torch.cat([first.up[module], second.up[module]], 1)
    return Lora(down, up)


def read_lora(path: str | Path, shapes: Shapes) -> Lora:
    """A LoRA file, or a peft folder, as float32 factors of scale 1 by diffusers' module names.

    `lora_names` has the layouts: diffusers, peft, ComfyUI and the original models, kohya. A layer that
    stands for several of the network's is split by its output rows, which is exact; they share `down`.
    Alpha is taken from `.alpha` tensors, else from the diffusers metadata or peft's adapter_config.json,
    else it is the rank. InputError, naming the file and the first keys, unless every key is used, every
    layer has both factors, all shapes fit `shapes` and all weights are finite.
    """
    path = weights_file(Path(path))
    known = places(shapes)
    faults: dict[str, list[str]] = {}
    slots: dict[Place, dict[str, Tensor]] = {}  # down, up and perhaps alpha
    layers: dict[Place, str] = {}  # as the file names them
    with opened(path) as handle:
        settings = _settings(path, handle.metadata() or {})
        for key in handle.keys():  # noqa: SIM118 (a safetensors handle, no dict)
            match = KEY.fullmatch(key)
            if match is None or match["layer"] not in known:
                faults.setdefault(what_else(key), []).append(key)
                continue
            place = known[match["layer"]]
            layers.setdefault(place, match["layer"])
            slot = ROLES[match["role"]] if match["role"] else "alpha"
            tensor = handle.get_tensor(key).clone()  # out of the mapped file
            if slot in slots.setdefault(place, {}):
                faults.setdefault("say again what another key says", []).append(key)
            elif not finite(tensor.float() if slot == "alpha" else tensor):
                faults.setdefault("hold NaN, infinity or no real numbers", []).append(key)
            slots[place][slot] = tensor
    taken: set[str] = set()
    for place, factors in slots.items():
        rows = sum(shapes[module][0] for module in place.modules)
        fault = _misfit(factors, (rows, shapes[place.modules[0]][1]))
        if not taken.isdisjoint(place.modules):
            fault = "say again what another key says"
        taken.update(place.modules)
        if fault:
            faults.setdefault(fault, []).append(layers[place])
    if faults or not slots:
        told = "; ".join(f"{len(names)} {fault} ({listed(names)})" for fault, names in faults.items())
        raise InputError(
            f"{path} cannot be used as a LoRA: {told or 'it is empty'}. Give a plain LoRA of this very model, "
            "without text-encoder weights"
        )
    down, up = {}, {}
    for place, factors in slots.items():
        whole = factors["up"].float() * _scale(path, layers[place], factors, settings)
        if place.swapped:
            whole = whole.roll(len(whole) // 2, 0)
        shares = whole.split([shapes[module][0] for module in place.modules])
        for module, share in zip(place.modules, shares, strict=True):
            down[module], up[module] = factors["down"].float(), share
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
        tensors[f"transformer.{module}.lora_A.weight"] = (
            lora.down[module].detach().to("cpu", dtype, copy=True).contiguous()
        )
        tensors[f"transformer.{module}.lora_B.weight"] = up.detach().to("cpu", dtype).contiguous()
    bad = [key for key, tensor in tensors.items() if not finite(tensor)]
    if bad:
        raise InputError(f"{path} is not written: NaN or infinity in {listed(bad)} as {dtype}; save as float32")
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
        start = str(settings.get("init_lora_weights"))
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"the LoRA settings that came with {path} cannot be read: {error!r}") from error
    if start.startswith(("pissa", "olora", "corda", "loftq")):
        raise InputError(
            f"{path} was trained from a start ({start}) that changes the base model too: save it converted to a "
            "plain LoRA (peft's path_initial_model_for_weight_conversion)"
        )
    return settings


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


def _scale(path: Path, layer: str, slots: Mapping[str, Tensor], settings: Mapping[str, Any]) -> float:
    rank = len(slots["down"])
    if "alpha" in slots:
        return slots["alpha"].item() / rank
    try:
        # As peft matches them: a pattern is a regular expression for the end of a layer's name.
        alphas = [
            float(alpha)
            for pattern, alpha in (settings.get("alpha_pattern") or {}).items()
            if re.fullmatch(rf"(.*\.)?({pattern.removeprefix('^')})", layer)
        ]
    except (re.error, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"the alpha_pattern of the LoRA settings that came with {path} is none: {error!r}") from error
    alpha = alphas[0] if alphas else settings.get("lora_alpha", rank)
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
